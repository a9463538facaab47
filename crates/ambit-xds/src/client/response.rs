//! A response turned into changes: what is usable, what is gone, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::model::{Policy, Scope};

use super::waypoint::{self, WaypointContent};
use crate::any::Any;
use crate::codec::{Address, Malformed, Notes, PolicyTarget, Problem, authorization};
use crate::kind::Kind;
use crate::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};

/// Everything one response changes, to be applied as one batch: removals first, then the rest in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The changes.
    pub content: Content,
    /// Resources that cannot be used; what was held under such a name stays in force.
    pub rejected: Vec<Rejected>,
    /// What was read as less than it says, each with the name of its resource.
    pub notes: Vec<(String, Notes)>,
    versions: Vec<(String, String)>,
    aliases: Vec<(String, Vec<String>)>,
}

/// The changes of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Workloads and services.
    Addresses {
        /// New or changed.
        upserts: Vec<Address>,
        /// Gone: uids, `NAMESPACE/HOSTNAME`, or on-demand keys behind which there is nothing.
        removed: Vec<String>,
    },
    /// Policies.
    Policies {
        /// New or changed.
        upserts: Vec<Arc<Policy>>,
        /// Gone: `NAMESPACE/NAME`.
        removed: Vec<String>,
    },
    /// What waypoints are told beside workloads and services; only to clients of waypoints.
    Waypoint(WaypointContent),
    /// Nothing this client asked for; acknowledged and to be reported.
    Unknown {
        /// The type of the response.
        type_url: String,
    },
}

impl Content {
    /// Names that are gone.
    pub fn removed(&self) -> &[String] {
        match self {
            Self::Addresses { removed, .. } | Self::Policies { removed, .. } => removed,
            Self::Waypoint(content) => content.removed(),
            Self::Unknown { .. } => &[],
        }
    }
}

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Name of the resource.
    pub name: String,
    /// Why, with the field.
    pub reason: Malformed,
    /// Which workloads the policy would cover, as far as that could be read; `None` for other resources.
    pub scope: Option<Scope>,
    /// What a waypoint's policy would cover, as far as that could be read; `None` for other resources.
    pub targets: Option<Vec<PolicyTarget>>,
}

/// What can be said of a resource that cannot be used.
#[derive(Debug, Default)]
pub(super) struct Hint {
    pub(super) scope: Option<Scope>,
    pub(super) targets: Option<Vec<PolicyTarget>>,
}

impl Update {
    /// Versions of what is usable, by name; empty on a second call.
    pub(super) fn take_versions(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.versions)
    }

    /// Aliases of what is usable, by name.
    pub(super) fn aliases(&self) -> &[(String, Vec<String>)] {
        &self.aliases
    }

    /// Names of what was sent, usable or not.
    pub(super) fn mentioned(&self) -> impl Iterator<Item = &str> {
        let rejected = self.rejected.iter().map(|rejected| rejected.name.as_str());
        self.versions.iter().map(|(name, _)| name.as_str()).chain(rejected)
    }

    /// Adds names that are gone, too: a first response is complete, and what was held and neither declared nor sent
    /// again no longer exists.
    pub(super) fn remove(&mut self, gone: BTreeSet<String>) {
        match &mut self.content {
            Content::Addresses { removed, .. } | Content::Policies { removed, .. } => removed.extend(gone),
            Content::Waypoint(content) => content.removed_mut().extend(gone),
            Content::Unknown { .. } => {}
        }
    }
}

/// Reads a response of `kind`.
pub(super) fn read(kind: Option<Kind>, response: DeltaDiscoveryResponse) -> Update {
    // Of a name that is sent twice the last one counts.
    let mut last: BTreeMap<String, Resource> = BTreeMap::new();
    let mut order = Vec::with_capacity(response.resources.len());
    for resource in response.resources {
        if !last.contains_key(&resource.name) {
            order.push(resource.name.clone());
        }
        last.insert(resource.name.clone(), resource);
    }
    let resources = order.iter().filter_map(|name| last.remove(name));
    let removed = response.removed_resources;
    let mut update = Update {
        content: Content::Unknown { type_url: response.type_url },
        rejected: Vec::new(),
        notes: Vec::new(),
        versions: Vec::new(),
        aliases: Vec::new(),
    };
    update.content = match kind {
        Some(Kind::Address) => {
            let read = |resource| update.accept(resource, address, no_hint);
            Content::Addresses { upserts: resources.filter_map(read).collect(), removed }
        }
        Some(Kind::Authorization) => {
            let hint = |any: &Any| Hint { scope: authorization::scope_hint(any), ..Hint::default() };
            let read = |resource| update.accept(resource, policy, hint);
            Content::Policies { upserts: resources.filter_map(read).collect(), removed }
        }
        Some(Kind::Frontend) => waypoint::frontends(&mut update, resources, removed),
        Some(Kind::Destination) => waypoint::destinations(&mut update, resources, removed),
        Some(Kind::HttpPolicy) => waypoint::policies(&mut update, resources, removed),
        Some(Kind::RequestAuthentication) => waypoint::authentications(&mut update, resources, removed),
        Some(Kind::Provider) => waypoint::providers(&mut update, resources, removed),
        None => return update,
    };
    update
}

impl Update {
    pub(super) fn accept<T>(
        &mut self,
        resource: Resource,
        read: impl Fn(&str, &Any, &mut Notes) -> Result<T, Malformed>,
        hint: impl Fn(&Any) -> Hint,
    ) -> Option<T> {
        let Resource { name, version, resource, aliases, .. } = resource;
        let mut notes = Notes::default();
        let result = match &resource {
            Some(any) => read(&name, any, &mut notes),
            None => Err(Malformed::at("resource", Problem::Missing)),
        };
        if !notes.is_empty() {
            self.notes.push((name.clone(), notes));
        }
        match result {
            Ok(value) => {
                self.aliases.push((name.clone(), aliases));
                self.versions.push((name, version));
                Some(value)
            }
            Err(reason) => {
                let Hint { scope, targets } = resource.as_ref().map(hint).unwrap_or_default();
                self.rejected.push(Rejected { name, reason, scope, targets });
                None
            }
        }
    }
}

pub(super) fn no_hint(_: &Any) -> Hint {
    Hint::default()
}

fn address(name: &str, any: &Any, notes: &mut Notes) -> Result<Address, Malformed> {
    let address = Address::decode(any, notes)?;
    same_name(name, address.name())?;
    Ok(address)
}

fn policy(name: &str, any: &Any, _: &mut Notes) -> Result<Arc<Policy>, Malformed> {
    let policy = authorization::decode_any(any)?;
    same_name(name, policy.key.to_string())?;
    Ok(Arc::new(policy))
}

/// A removal says only a name, so the name around a resource and the one in it must be the same.
pub(super) fn same_name(resource: &str, content: String) -> Result<(), Malformed> {
    if resource == content {
        return Ok(());
    }
    Err(Malformed::at("name", Problem::Name { resource: resource.to_owned(), content }))
}
