//! Links, addresses, routes and kernel settings inside one network namespace.
//!
//! Every function acts in the namespace it is given and nowhere else. What connects to what is decided in
//! [`crate::topology`].

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use ambit_net::linux::netns::NetNs;
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::address::host_prefix;
use crate::error::LabError;

/// A namespace together with the name it is known by in messages.
#[derive(Debug)]
pub struct Place {
    /// File name below `/run/netns`.
    pub name: String,
    /// The namespace.
    pub netns: NetNs,
}

impl Place {
    /// Makes a namespace and brings its loopback up.
    ///
    /// # Errors
    /// If the name is taken or the kernel refuses.
    pub fn create(name: String) -> Result<Self, LabError> {
        let netns = NetNs::create_named(&name)?;
        let place = Self { name, netns };
        place.set(&[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.accept_ra", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.all.disable_ipv6", "0"),
            ("net.ipv6.conf.default.disable_ipv6", "0"),
        ])?;
        place.act(async |links| links.up("lo").await)?;
        Ok(place)
    }

    /// Opens a namespace that exists.
    ///
    /// # Errors
    /// If it does not.
    pub fn open(name: String) -> Result<Self, LabError> {
        let netns = NetNs::open(&std::path::Path::new(ambit_net::linux::netns::NETNS_DIR).join(&name))?;
        Ok(Self { name, netns })
    }

    /// Sets kernel parameters of the namespace, by the names `sysctl` uses.
    ///
    /// # Errors
    /// Names the parameter that could not be set.
    pub fn set(&self, parameters: &[(&str, impl AsRef<str> + Sync)]) -> Result<(), LabError> {
        self.netns.run_on_thread(|| {
            for (name, value) in parameters {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                match std::fs::write(&path, value.as_ref()) {
                    // A kernel without IPv6 has none of its parameters and needs none of them set.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound && name.starts_with("net.ipv6") => {}
                    other => other.map_err(LabError::file("setting kernel parameter", path))?,
                }
            }
            Ok(())
        })?
    }

    /// Runs netlink work inside the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// What the work returned, or why it could not be begun.
    pub fn act<R: Send>(
        &self,
        work: impl AsyncFnOnce(&Links<'_>) -> Result<R, LabError> + Send,
    ) -> Result<R, LabError> {
        self.netns.run_on_thread(|| {
            let fail = |cause| LabError::File {
                doing: "opening a netlink socket in",
                path: self.name.clone().into(),
                cause,
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().map_err(fail)?;
                let links = Links { handle, netns: &self.name };
                beside(connection, work(&links)).await
            })
        })?
    }
}

/// Drives the netlink connection while `work` uses it.
async fn beside<R>(connection: impl Future<Output = ()>, work: impl Future<Output = R>) -> R {
    let mut connection = std::pin::pin!(connection);
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => result,
        // The connection ends only when its socket fails; the requests then fail by themselves.
        () = &mut connection => work.await,
    }
}

/// The links of one namespace, as netlink shows them.
#[derive(Debug)]
pub struct Links<'a> {
    handle: Handle,
    netns: &'a str,
}

impl Links<'_> {
    fn fail(&self, doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LabError {
        let (doing, netns) = (doing.into(), self.netns.to_owned());
        move |cause| LabError::Link { doing, netns, cause: Box::new(cause) }
    }

    /// Index of a link.
    ///
    /// # Errors
    /// If there is none of that name.
    pub async fn index(&self, link: &str) -> Result<u32, LabError> {
        let mut found = self.handle.link().get().match_name(link.to_owned()).execute();
        let message = found.try_next().await.map_err(self.fail(format!("looking for link {link}")))?;
        let message = message.ok_or_else(|| LabError::Failed(format!("no link {link} in {}", self.netns)))?;
        Ok(message.header.index)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// If there is none of that name, or the kernel refuses.
    pub async fn up(&self, link: &str) -> Result<u32, LabError> {
        let index = self.index(link).await?;
        let change = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .change(change)
            .execute()
            .await
            .map_err(self.fail(format!("bringing {link} up")))?;
        Ok(index)
    }

    /// Sets the largest packet a link carries, in bytes.
    ///
    /// # Errors
    /// If the kernel refuses the size.
    pub async fn mtu(&self, link: &str, bytes: u32) -> Result<(), LabError> {
        let index = self.index(link).await?;
        let change = LinkUnspec::new_with_index(index).mtu(bytes).build();
        let doing = format!("setting the MTU of {link} to {bytes}");
        self.handle.link().change(change).execute().await.map_err(self.fail(doing))
    }

    /// Makes a bridge and brings it up.
    ///
    /// # Errors
    /// If the kernel has no bridges or the name is taken.
    pub async fn bridge(&self, link: &str) -> Result<u32, LabError> {
        let request = self.handle.link().add(LinkBridge::new(link).build());
        request.execute().await.map_err(self.fail(format!("making bridge {link}")))?;
        self.up(link).await
    }

    /// Makes `link` a port of the bridge with index `bridge`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn join(&self, link: &str, bridge: u32) -> Result<(), LabError> {
        let index = self.index(link).await?;
        let change = LinkUnspec::new_with_index(index).controller(bridge).build();
        self.handle
            .link()
            .change(change)
            .execute()
            .await
            .map_err(self.fail(format!("joining {link} to the bridge")))
    }

    /// Makes a pair of links: `link` here, `peer_link` in the other namespace. Both are still down.
    ///
    /// # Errors
    /// If a name is taken or the kernel refuses.
    pub async fn veth(&self, link: &str, peer: &NetNs, peer_link: &str) -> Result<(), LabError> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_link.to_owned())
            .setns_by_fd(peer.as_fd().as_raw_fd())
            .build();
        let near = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(link.to_owned())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .build();
        let doing = format!("making link {link} with its other end {peer_link}");
        self.handle.link().add(near).execute().await.map_err(self.fail(doing))
    }

    /// Removes a link and with it its other end; a missing one is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn remove(&self, link: &str) -> Result<(), LabError> {
        let Ok(index) = self.index(link).await else { return Ok(()) };
        self.handle.link().del(index).execute().await.map_err(self.fail(format!("removing link {link}")))
    }

    /// Gives a link an address that is usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// If the link has it already or the kernel refuses.
    pub async fn address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), LabError> {
        let mut request = self.handle.address().add(index, address, prefix);
        let message = request.message_mut();
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(self.fail(format!("adding address {address}/{prefix}")))
    }

    /// Adds a route to a network behind `gateway`, out of the link with that index.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn route_via(&self, to: IpNet, gateway: IpAddr, index: u32) -> Result<(), LabError> {
        let doing = format!("adding a route to {to} via {gateway}");
        let message = match (to, gateway) {
            (IpNet::V4(to), IpAddr::V4(gateway)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len())
                .gateway(gateway)
                .output_interface(index)
                .build(),
            (IpNet::V6(to), IpAddr::V6(gateway)) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len())
                .gateway(gateway)
                .output_interface(index)
                .build(),
            (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => {
                return Err(LabError::Failed(format!("{doing}: the families differ")));
            }
        };
        self.route(message, doing).await
    }

    /// Adds a route to one host that is reached directly over the link with that index.
    ///
    /// `source` is the address that this namespace then uses towards it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn route_host(&self, to: IpAddr, source: Option<IpAddr>, index: u32) -> Result<(), LabError> {
        let doing = format!("adding a route to {to}");
        let message = match to {
            IpAddr::V4(host) => {
                let mut route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                    .destination_prefix(host, host_prefix(to))
                    .scope(RouteScope::Link)
                    .output_interface(index);
                if let Some(IpAddr::V4(source)) = source {
                    route = route.pref_source(source);
                }
                route.build()
            }
            IpAddr::V6(host) => {
                let mut route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                    .destination_prefix(host, host_prefix(to))
                    .output_interface(index);
                if let Some(IpAddr::V6(source)) = source {
                    route = route.pref_source(source);
                }
                route.build()
            }
        };
        self.route(message, doing).await
    }

    /// Adds a route to one host behind a gateway, out of the link with that index: `to`, `gateway`, and the address that
    /// this namespace then uses towards it.
    ///
    /// # Errors
    /// If the kernel refuses, or the three are not of one family.
    pub async fn route_host_via(
        &self,
        (to, gateway, source): (IpAddr, IpAddr, IpAddr),
        index: u32,
    ) -> Result<(), LabError> {
        let doing = format!("adding a route to {to} via {gateway} from {source}");
        let all = (to, gateway, source);
        let message = if let (IpAddr::V4(host), IpAddr::V4(gateway), IpAddr::V4(source)) = all {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(host, host_prefix(to))
                .gateway(gateway)
                .output_interface(index)
                .pref_source(source)
                .build()
        } else if let (IpAddr::V6(host), IpAddr::V6(gateway), IpAddr::V6(source)) = all {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(host, host_prefix(to))
                .gateway(gateway)
                .output_interface(index)
                .pref_source(source)
                .build()
        } else {
            return Err(LabError::Failed(format!("{doing}: the families differ")));
        };
        self.route(message, doing).await
    }

    async fn route(&self, message: RouteMessage, doing: String) -> Result<(), LabError> {
        self.handle.route().add(message).replace().execute().await.map_err(self.fail(doing))
    }
}
