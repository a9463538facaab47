//! What a response to a waypoint changes beside workloads and services.

use std::sync::Arc;

use ambit_policy::http::provider::Provider;
use ambit_route::model::{Destination, Frontend};

use super::response::{Content, Hint, Update, no_hint, same_name};
use crate::any::Any;
use crate::codec::{
    HttpPolicy, Malformed, Notes, RequestAuthentication, destination, frontend, http_policy, provider,
    request_authentication,
};
use crate::kind::Kind;
use crate::proto::envoy::service::discovery::v3::Resource;

/// The changes of one kind. `removed` holds names of resources.
#[derive(Debug, Clone, PartialEq)]
pub enum WaypointContent {
    /// Routes, each attached to a port of a service.
    Frontends {
        /// New or changed.
        upserts: Vec<Arc<Frontend>>,
        /// Gone: `NAMESPACE/HOSTNAME/PORT`.
        removed: Vec<String>,
    },
    /// How services are treated as destinations.
    Destinations {
        /// New or changed.
        upserts: Vec<Arc<Destination>>,
        /// Gone: `NAMESPACE/HOSTNAME`.
        removed: Vec<String>,
    },
    /// Policies.
    Policies {
        /// New or changed.
        upserts: Vec<Arc<HttpPolicy>>,
        /// Gone: `NAMESPACE/NAME`.
        removed: Vec<String>,
    },
    /// How tokens are checked.
    Authentications {
        /// New or changed.
        upserts: Vec<Arc<RequestAuthentication>>,
        /// Gone: `NAMESPACE/NAME`.
        removed: Vec<String>,
    },
    /// Whom CUSTOM policies ask.
    Providers {
        /// New or changed.
        upserts: Vec<Arc<Provider>>,
        /// Gone: `NAME`.
        removed: Vec<String>,
    },
}

impl WaypointContent {
    /// The kind of its resources.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Frontends { .. } => Kind::Frontend,
            Self::Destinations { .. } => Kind::Destination,
            Self::Policies { .. } => Kind::HttpPolicy,
            Self::Authentications { .. } => Kind::RequestAuthentication,
            Self::Providers { .. } => Kind::Provider,
        }
    }

    /// Names that are gone.
    pub fn removed(&self) -> &[String] {
        match self {
            Self::Frontends { removed, .. }
            | Self::Destinations { removed, .. }
            | Self::Policies { removed, .. }
            | Self::Authentications { removed, .. }
            | Self::Providers { removed, .. } => removed,
        }
    }

    pub(super) fn removed_mut(&mut self) -> &mut Vec<String> {
        match self {
            Self::Frontends { removed, .. }
            | Self::Destinations { removed, .. }
            | Self::Policies { removed, .. }
            | Self::Authentications { removed, .. }
            | Self::Providers { removed, .. } => removed,
        }
    }
}

/// Reads what is usable of `resources`, each under its own name.
fn usable<T>(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    decode: impl Fn(&Any, &mut Notes) -> Result<T, Malformed>,
    name: impl Fn(&T) -> String,
    hint: impl Fn(&Any) -> Hint,
) -> Vec<Arc<T>> {
    let read = |resource: &str, any: &Any, notes: &mut Notes| {
        let value = decode(any, notes)?;
        same_name(resource, name(&value))?;
        Ok(Arc::new(value))
    };
    resources.filter_map(|resource| update.accept(resource, read, &hint)).collect()
}

pub(super) fn frontends(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    removed: Vec<String>,
) -> Content {
    let upserts = usable(update, resources, frontend::decode_any, frontend::name, no_hint);
    Content::Waypoint(WaypointContent::Frontends { upserts, removed })
}

pub(super) fn destinations(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    removed: Vec<String>,
) -> Content {
    let upserts = usable(update, resources, destination::decode_any, destination::name, no_hint);
    Content::Waypoint(WaypointContent::Destinations { upserts, removed })
}

pub(super) fn policies(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    removed: Vec<String>,
) -> Content {
    let decode = |any: &Any, _: &mut Notes| http_policy::decode_any(any);
    let hint = |any: &Any| Hint { targets: http_policy::targets_hint(any), ..Hint::default() };
    let upserts = usable(update, resources, decode, HttpPolicy::name, hint);
    Content::Waypoint(WaypointContent::Policies { upserts, removed })
}

pub(super) fn authentications(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    removed: Vec<String>,
) -> Content {
    let decode = |any: &Any, _: &mut Notes| request_authentication::decode_any(any);
    let hint = |any: &Any| Hint { targets: request_authentication::targets_hint(any), ..Hint::default() };
    let upserts = usable(update, resources, decode, RequestAuthentication::name, hint);
    Content::Waypoint(WaypointContent::Authentications { upserts, removed })
}

pub(super) fn providers(
    update: &mut Update,
    resources: impl Iterator<Item = Resource>,
    removed: Vec<String>,
) -> Content {
    let decode = |any: &Any, _: &mut Notes| provider::decode_any(any);
    let upserts = usable(update, resources, decode, provider::name, no_hint);
    Content::Waypoint(WaypointContent::Providers { upserts, removed })
}
