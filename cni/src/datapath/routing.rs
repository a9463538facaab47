//! Policy routing inside a namespace: replies that carry the connection mark go to the proxy over `lo`.
//!
//! One rule and one route for each address family that the namespace's `lo` has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsError};
use ambit_runtime::tasks;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use tokio::time::timeout;

use crate::rules::{CONNECTION_MARK, MARK_MASK};

/// Priority of our rule.
pub const PRIORITY: u32 = 32764;
/// Number of our routing table.
pub const TABLE: u32 = 100;
/// Index of `lo`, the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// Longest wait for the kernel's answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// EEXIST, as netlink reports it.
const EXISTS: i32 = -17;

/// Why policy routing could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// The namespace could not be entered.
    #[error("entering the namespace for netlink")]
    Namespace(#[from] NetNsError),
    /// No netlink socket.
    #[error("opening a netlink socket; are descriptors left?")]
    Open(#[source] io::Error),
    /// The kernel said no.
    #[error("{what}")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        cause: rtnetlink::Error,
    },
    /// The kernel did not answer.
    #[error("{what}: no answer within {DEADLINE:?}")]
    Deadline {
        /// What was asked of it.
        what: &'static str,
    },
    /// The namespace has no loopback interface that is up.
    #[error("the namespace's lo has no address; is it up?")]
    NoLoopback,
}

/// One address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

/// A conversation with the kernel about one namespace; ends when this value goes away.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a socket inside the namespace.
    ///
    /// # Errors
    /// [`RoutingError::Namespace`] or [`RoutingError::Open`].
    pub fn open(netns: &NetNs) -> Result<Self, RoutingError> {
        let (connection, handle, _) = netns.run(rtnetlink::new_connection)?.map_err(RoutingError::Open)?;
        tasks::spawn("netlink", connection);
        Ok(Self { handle })
    }

    /// Every address of the namespace with the index of its interface.
    ///
    /// # Errors
    /// [`RoutingError::Kernel`].
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, RoutingError> {
        let list = self.handle.address().get().execute().try_collect::<Vec<_>>();
        let list = ask("listing the namespace's addresses", list).await?;
        let own = |message: rtnetlink::packet_route::address::AddressMessage| {
            let index = message.header.index;
            // On IPv4 the pod's own address is the local one; IPv6 has only the other.
            let local = message.attributes.iter().find_map(local_address);
            local.or_else(|| message.attributes.iter().find_map(plain_address)).map(|a| (index, a))
        };
        Ok(list.into_iter().filter_map(own).collect())
    }

    async fn families(&self) -> Result<Vec<Family>, RoutingError> {
        let addresses = self.addresses().await?;
        let on_loopback = |family| addresses.iter().any(|(i, a)| *i == LOOPBACK && Family::of(*a) == family);
        let families: Vec<Family> =
            [Family::V4, Family::V6].into_iter().filter(|f| on_loopback(*f)).collect();
        if families.is_empty() { Err(RoutingError::NoLoopback) } else { Ok(families) }
    }

    /// Adds what is missing.
    ///
    /// # Errors
    /// [`RoutingError`].
    pub async fn ensure(&self) -> Result<(), RoutingError> {
        for family in self.families().await? {
            if self.our_rules(family).await?.is_empty() {
                self.add_rule(family).await?;
            }
            if self.our_routes(family).await?.is_empty() {
                self.add_route(family).await?;
            }
        }
        Ok(())
    }

    /// The first thing that should be there and is not, in words.
    ///
    /// # Errors
    /// [`RoutingError`].
    pub async fn missing(&self) -> Result<Option<String>, RoutingError> {
        for family in self.families().await? {
            let word = family.word();
            if self.our_rules(family).await?.is_empty() {
                return Ok(Some(format!("the {word} routing rule with priority {PRIORITY} is gone")));
            }
            if self.our_routes(family).await?.is_empty() {
                return Ok(Some(format!("the {word} route of table {TABLE} is gone")));
            }
        }
        Ok(None)
    }

    /// Deletes our rules and routes of both families.
    ///
    /// # Errors
    /// [`RoutingError`].
    pub async fn remove(&self) -> Result<(), RoutingError> {
        for family in [Family::V4, Family::V6] {
            for rule in self.our_rules(family).await? {
                ask("deleting our routing rule", self.handle.rule().del(rule).execute()).await?;
            }
            for route in self.our_routes(family).await? {
                ask("deleting our route", self.handle.route().del(route).execute()).await?;
            }
        }
        Ok(())
    }

    async fn our_rules(&self, family: Family) -> Result<Vec<RuleMessage>, RoutingError> {
        let list = self.handle.rule().get(family.version()).execute().try_collect::<Vec<_>>();
        let mut list = ask("listing routing rules", list).await?;
        list.retain(is_our_rule);
        Ok(list)
    }

    async fn our_routes(&self, family: Family) -> Result<Vec<RouteMessage>, RoutingError> {
        let wanted = our_route(family);
        let list = self.handle.route().get(wanted.clone()).execute().try_collect::<Vec<_>>();
        let mut list = ask("listing routes", list).await?;
        list.retain(|route| is_our_route(route, &wanted));
        Ok(list)
    }

    async fn add_rule(&self, family: Family) -> Result<(), RoutingError> {
        let add = self.handle.rule().add().priority(PRIORITY).fw_mark(CONNECTION_MARK).table_id(TABLE);
        let mut add = add.action(RuleAction::ToTable);
        add.message_mut().attributes.push(RuleAttribute::FwMask(MARK_MASK));
        let what = "adding our routing rule";
        let added = match family {
            Family::V4 => ask(what, add.v4().execute()).await,
            Family::V6 => ask(what, add.v6().execute()).await,
        };
        tolerate_existing(added)
    }

    async fn add_route(&self, family: Family) -> Result<(), RoutingError> {
        let add = self.handle.route().add(our_route(family)).execute();
        tolerate_existing(ask("adding our route", add).await)
    }
}

async fn ask<T>(
    what: &'static str,
    question: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, RoutingError> {
    timeout(DEADLINE, question)
        .await
        .map_err(|_| RoutingError::Deadline { what })?
        .map_err(|cause| RoutingError::Kernel { what, cause })
}

/// Somebody else may have added the same between our look and our request.
fn tolerate_existing(added: Result<(), RoutingError>) -> Result<(), RoutingError> {
    match added {
        Err(RoutingError::Kernel { cause: rtnetlink::Error::NetlinkError(e), .. })
            if e.raw_code() == EXISTS =>
        {
            Ok(())
        }
        other => other,
    }
}

fn is_our_rule(rule: &RuleMessage) -> bool {
    let has = |wanted: &RuleAttribute| rule.attributes.contains(wanted);
    let table = has(&RuleAttribute::Table(TABLE)) || u32::from(rule.header.table) == TABLE;
    table
        && rule.header.action == RuleAction::ToTable
        && has(&RuleAttribute::Priority(PRIORITY))
        && has(&RuleAttribute::FwMark(CONNECTION_MARK))
        && has(&RuleAttribute::FwMask(MARK_MASK))
}

fn our_route(family: Family) -> RouteMessage {
    match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(TABLE)
            .output_interface(LOOPBACK)
            .build(),
        Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
            .kind(RouteType::Local)
            .table_id(TABLE)
            .output_interface(LOOPBACK)
            .build(),
    }
}

fn is_our_route(route: &RouteMessage, wanted: &RouteMessage) -> bool {
    let table =
        route.attributes.contains(&RouteAttribute::Table(TABLE)) || u32::from(route.header.table) == TABLE;
    table
        && route.header.address_family == wanted.header.address_family
        && route.header.kind == RouteType::Local
        && route.header.destination_prefix_length == 0
        && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK))
}

fn local_address(attribute: &AddressAttribute) -> Option<IpAddr> {
    if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None }
}

fn plain_address(attribute: &AddressAttribute) -> Option<IpAddr> {
    if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
}
