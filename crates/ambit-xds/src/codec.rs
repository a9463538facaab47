//! What the messages mean: wire messages to the types of the mesh and back.
//!
//! Strict about form, tolerant of novelty. A malformed piece (an address of five bytes, a port beyond 65535, a
//! comparison without a kind) rejects its whole resource, because a policy or an endpoint read in part is a
//! different one. An enum value or a field that this version does not know degrades to the safest known meaning
//! and is noted, because a newer control plane must not make workloads vanish. Encoding is deterministic.
//!
//! The resources of a waypoint, which are our own, also carry the names of what their reader has to know (`needs`),
//! and are refused by one that does not: there a field that is passed over could make an ALLOW wider.

pub mod address;
pub mod authorization;
mod bounds;
pub mod destination;
pub mod frontend;
pub mod http_policy;
mod network;
mod problem;
pub mod provider;
pub mod request_authentication;
mod route;
pub mod service;
pub mod target;
#[cfg(test)]
mod tests;
pub mod workload;

pub use address::Address;
pub use http_policy::HttpPolicy;
pub use problem::{Malformed, Notes, Problem};
pub use request_authentication::RequestAuthentication;
pub use target::PolicyTarget;

use ambit_types::service::Port;
use ambit_types::{AppProtocol, PolicyKey};

use crate::any::Any;
use crate::proto::istio::workload as wire;

/// Full name of the message that describes a workload or a service.
pub const ADDRESS: &str = "istio.workload.Address";

/// Full name of the message that describes a policy.
pub const AUTHORIZATION: &str = "istio.security.Authorization";

/// Full name of the message that describes the routes of a port.
pub const FRONTEND: &str = "ambit.waypoint.v1.Frontend";

/// Full name of the message that describes a service as a destination.
pub const DESTINATION: &str = "ambit.waypoint.v1.Destination";

/// Full name of the message that describes a waypoint's policy.
pub const HTTP_POLICY: &str = "ambit.waypoint.v1.HttpPolicy";

/// Full name of the message that describes how tokens are checked.
pub const REQUEST_AUTHENTICATION: &str = "ambit.waypoint.v1.RequestAuthentication";

/// Full name of the message that describes whom CUSTOM policies ask.
pub const EXTENSION_PROVIDER: &str = "ambit.waypoint.v1.ExtensionProvider";

/// A number that must be a port.
fn port(field: &str, number: u32) -> Result<u16, Malformed> {
    u16::try_from(number).map_err(|_| Malformed::at(field, Problem::Port { found: number }))
}

/// Ports of a service or of an endpoint.
fn ports(list: &[wire::Port], notes: &mut Notes) -> Result<Vec<Port>, Malformed> {
    list.iter()
        .enumerate()
        .map(|(index, entry)| {
            one_port(entry, notes).map_err(|malformed| malformed.inside(&format!("ports[{index}]")))
        })
        .collect()
}

fn one_port(entry: &wire::Port, notes: &mut Notes) -> Result<Port, Malformed> {
    let app_protocol = match wire::AppProtocol::try_from(entry.app_protocol) {
        Ok(wire::AppProtocol::Unknown) => AppProtocol::Unknown,
        Ok(wire::AppProtocol::Http11) => AppProtocol::Http11,
        Ok(wire::AppProtocol::Http2) => AppProtocol::Http2,
        Ok(wire::AppProtocol::Grpc) => AppProtocol::Grpc,
        Ok(wire::AppProtocol::Tcp) => AppProtocol::Tcp,
        Ok(wire::AppProtocol::Tls) => AppProtocol::Tls,
        Err(_) => notes.unknown("app_protocol", entry.app_protocol, AppProtocol::Unknown),
    };
    Ok(Port {
        service_port: port("service_port", entry.service_port)?,
        target_port: port("target_port", entry.target_port)?,
        app_protocol,
    })
}

/// Ports as they go on the wire, in the order given.
fn encode_ports(list: &[Port]) -> Vec<wire::Port> {
    list.iter()
        .map(|entry| wire::Port {
            service_port: entry.service_port.into(),
            target_port: entry.target_port.into(),
            app_protocol: match entry.app_protocol {
                AppProtocol::Unknown => wire::AppProtocol::Unknown,
                AppProtocol::Http11 => wire::AppProtocol::Http11,
                AppProtocol::Http2 => wire::AppProtocol::Http2,
                AppProtocol::Grpc => wire::AppProtocol::Grpc,
                AppProtocol::Tcp => wire::AppProtocol::Tcp,
                AppProtocol::Tls => wire::AppProtocol::Tls,
            }
            .into(),
        })
        .collect()
}

/// The extension called `name`, which must hold the message `message`.
///
/// Extensions of other names are somebody else's and no concern of ours.
fn extension<M: prost::Message + Default>(
    list: &[wire::Extension],
    name: &str,
    message: &str,
) -> Result<Option<M>, Malformed> {
    let Some((index, found)) = list.iter().enumerate().find(|(_, extension)| extension.name == name) else {
        return Ok(None);
    };
    let field = || format!("extensions[{index}].config");
    let config = found.config.as_ref().ok_or_else(|| Malformed::at(field(), Problem::Missing))?;
    if !config.is(message) {
        return Err(Malformed::at(field(), Problem::Type { found: config.type_url.clone() }));
    }
    M::decode(config.value.clone())
        .map(Some)
        .map_err(|cause| Malformed::at(field(), Problem::Encoding(cause.to_string())))
}

/// An extension that holds `config`.
fn encode_extension(name: &str, message: &str, config: &impl prost::Message) -> wire::Extension {
    wire::Extension { name: name.to_owned(), config: Some(Any::pack(message, config)) }
}

/// A policy name as it stands in a workload or as the name of a resource.
fn policy_key(field: &str, text: &str) -> Result<PolicyKey, Malformed> {
    PolicyKey::parse(text).map_err(|cause| Malformed::at(field, Problem::Key(cause)))
}

/// A text that must not be empty.
fn required<'a>(field: &str, text: &'a str) -> Result<&'a str, Malformed> {
    if text.is_empty() { Err(Malformed::at(field, Problem::Missing)) } else { Ok(text) }
}
