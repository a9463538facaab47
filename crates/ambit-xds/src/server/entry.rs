//! A resource as it is published: encoded once, with its version, what leads to it, and where it leads.

use std::sync::Arc;

use ambit_types::service::HealthPolicy;
use ambit_types::{Destination, GatewayAddress, Service, Str, Workload};
use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

use super::shards::Same;
use crate::any::Any;
use crate::codec::Address;
use crate::kind::Kind;
use crate::proto::envoy::service::discovery::v3::Resource;

/// One resource.
#[derive(Debug)]
pub(super) struct Entry {
    version: Version,
    content: Bytes,
    pub(super) links: Links,
    stands_in: bool,
}

/// Hash of a resource's content, in hexadecimal. There is one for each resource, so it takes no memory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version([u8; 16]);

impl Version {
    fn of(content: &[u8]) -> Self {
        let mut digits = [0; 16];
        digits.copy_from_slice(format!("{:016x}", xxh64(content, 0)).as_bytes());
        Self(digits)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are text")
    }
}

/// What leads to a resource, and where it leads.
///
/// Lists without room to spare, since every workload has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) aliases: Box<[Str]>,
    pub(super) services: Box<[Str]>,
    pub(super) node: Option<Str>,
    /// Names or aliases of waypoints and gateways.
    pub(super) gateways: Box<[Str]>,
    /// A service that takes endpoints which are not ready.
    unready_too: bool,
}

impl Same for Arc<Entry> {
    fn same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other) || self.has_content_of(other)
    }
}

impl Entry {
    /// One that nothing leads to but its name.
    pub(super) fn plain(content: Any) -> Self {
        Self::new(content, Links::default())
    }

    /// One that nothing leads to, and that denies whatever else is there while `stands_in` says so.
    pub(super) fn policy(content: Any, stands_in: bool) -> Self {
        Self { stands_in, ..Self::plain(content) }
    }

    /// A workload or a service.
    pub(super) fn of(address: &Address) -> Self {
        Self::new(address.encode(), links(address))
    }

    fn new(content: Any, links: Links) -> Self {
        Self { version: Version::of(&content.value), content: content.value, links, stands_in: false }
    }

    /// Whether the other is encoded alike.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        self.version == other.version
    }

    /// Hash of the content.
    pub(super) fn version(&self) -> &str {
        self.version.as_str()
    }

    /// Whether it is a policy that nobody can use, so that nothing is allowed where it applies.
    pub(super) fn stands_in(&self) -> bool {
        self.stands_in
    }

    /// Whether it is a service that takes endpoints which are not ready.
    pub(super) fn takes_unready(&self) -> bool {
        self.links.unready_too
    }

    /// The message of a resource of this kind; aliases only for those who asked by alias.
    pub(super) fn message(&self, kind: Kind, name: &str, with_aliases: bool) -> Resource {
        let aliases = if with_aliases { &self.links.aliases[..] } else { &[] };
        Resource {
            version: self.version().to_owned(),
            resource: Some(Any { type_url: kind.url().to_owned(), value: self.content.clone() }),
            name: name.to_owned(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            ..Resource::default()
        }
    }
}

/// Name of a workload or a service; of a workload in the memory of its uid.
pub(super) fn name(address: &Address) -> Str {
    match address {
        Address::Workload(workload) => workload.uid.shared(),
        Address::Service(_) => Str::from(address.name()),
    }
}

fn links(address: &Address) -> Links {
    let aliases = address.aliases().into_iter().map(Str::from).collect();
    match address {
        Address::Workload(workload) => of_workload(workload, aliases),
        Address::Service(service) => of_service(service, aliases),
    }
}

fn of_workload(workload: &Workload, aliases: Box<[Str]>) -> Links {
    let gateways = workload.waypoint.iter().chain(&workload.network_gateway);
    Links {
        aliases,
        services: workload.services.keys().map(|key| Str::from(key.to_string())).collect(),
        node: (!workload.node.is_empty()).then(|| workload.node.clone()),
        gateways: gateways.map(gateway_key).collect(),
        unready_too: false,
    }
}

fn of_service(service: &Service, aliases: Box<[Str]>) -> Links {
    let weighted = service.weighted_waypoints.iter().map(|entry| &entry.destination);
    let gateways = service.waypoint.iter().chain(weighted).map(gateway_key).collect();
    let unready_too = service.load_balancing.health == HealthPolicy::AllowAll;
    Links { aliases, gateways, unready_too, ..Links::default() }
}

fn gateway_key(gateway: &GatewayAddress) -> Str {
    Str::from(match &gateway.destination {
        Destination::Hostname(key) => key.to_string(),
        Destination::Address(address) => address.to_string(),
    })
}
