//! One attribute and the values it may and may not have.

use ambit_policy::http::model::{Condition, HeaderName};
use ambit_policy::jwt::ClaimPath;

use super::values::{self, accounts, paths, ports, principals, ranges, request_principals, texts};
use crate::codec::bounds::{encode_texts, present, within};
use crate::codec::{Malformed, Problem};
use crate::proto::ambit::waypoint::v1 as wire;
use wire::condition::Attribute as Wire;

/// Reads a condition; one on an attribute of an unknown kind cannot be read.
pub(super) fn decode(message: &wire::Condition) -> Result<Condition, Malformed> {
    use Condition as C;
    match present("attribute", message.attribute.as_ref())? {
        Wire::Principal(v) => within("principal", principals(v)).map(C::Principal),
        Wire::Namespace(v) => within("namespace", values::globs(v)).map(C::Namespace),
        Wire::ServiceAccount(v) => within("service_account", accounts(v)).map(C::ServiceAccount),
        Wire::TrustDomain(v) => within("trust_domain", texts(v)).map(C::TrustDomain),
        Wire::SourceIp(v) => within("source_ip", ranges(v)).map(C::SourceIp),
        Wire::RemoteIp(v) => within("remote_ip", ranges(v)).map(C::RemoteIp),
        Wire::DestinationIp(v) => within("destination_ip", ranges(v)).map(C::DestinationIp),
        Wire::DestinationPort(v) => within("destination_port", ports(v)).map(C::DestinationPort),
        Wire::ServerName(v) => within("server_name", texts(v)).map(C::ServerName),
        Wire::Host(v) => within("host", texts(v)).map(C::Host),
        Wire::Method(v) => within("method", texts(v)).map(C::Method),
        Wire::Path(v) => within("path", paths(v)).map(C::Path),
        Wire::Header(v) => within("header", header(v)),
        Wire::RequestPrincipal(v) => {
            within("request_principal", request_principals(v)).map(C::RequestPrincipal)
        }
        Wire::Audience(v) => within("audience", texts(v)).map(C::Audience),
        Wire::Presenter(v) => within("presenter", texts(v)).map(C::Presenter),
        Wire::Claim(v) => within("claim", claim(v)),
    }
}

fn header(message: &wire::HeaderValues) -> Result<Condition, Malformed> {
    let form = || Problem::Form { text: message.name.clone(), what: "name of a header" };
    let name = HeaderName::parse(&message.name).ok_or_else(|| Malformed::at("name", form()))?;
    let values = texts(present("values", message.values.as_ref())?);
    Ok(Condition::Header(name, within("values", values)?))
}

fn claim(message: &wire::ClaimValues) -> Result<Condition, Malformed> {
    let names = message.path.iter().map(String::as_str);
    let path = ClaimPath::new(names).ok_or_else(|| Malformed::at("path", Problem::Missing))?;
    let values = texts(present("values", message.values.as_ref())?);
    Ok(Condition::Claim(path, within("values", values)?))
}

/// Writes a condition.
pub(super) fn encode(condition: &Condition) -> wire::Condition {
    use values::{encode_accounts, encode_paths, encode_ports, encode_ranges, encode_texts as text, words};
    let attribute = match condition {
        Condition::Principal(v) => Wire::Principal(text(v)),
        Condition::Namespace(v) => Wire::Namespace(words(v)),
        Condition::ServiceAccount(v) => Wire::ServiceAccount(encode_accounts(v)),
        Condition::TrustDomain(v) => Wire::TrustDomain(text(v)),
        Condition::SourceIp(v) => Wire::SourceIp(encode_ranges(v)),
        Condition::RemoteIp(v) => Wire::RemoteIp(encode_ranges(v)),
        Condition::DestinationIp(v) => Wire::DestinationIp(encode_ranges(v)),
        Condition::DestinationPort(v) => Wire::DestinationPort(encode_ports(v)),
        Condition::ServerName(v) => Wire::ServerName(text(v)),
        Condition::Host(v) => Wire::Host(text(v)),
        Condition::Method(v) => Wire::Method(text(v)),
        Condition::Path(v) => Wire::Path(encode_paths(v)),
        Condition::Header(name, v) => {
            Wire::Header(wire::HeaderValues { name: name.to_string(), values: Some(text(v)) })
        }
        Condition::RequestPrincipal(v) => Wire::RequestPrincipal(words(v)),
        Condition::Audience(v) => Wire::Audience(text(v)),
        Condition::Presenter(v) => Wire::Presenter(text(v)),
        Condition::Claim(path, v) => {
            Wire::Claim(wire::ClaimValues { path: encode_texts(path.names()), values: Some(text(v)) })
        }
    };
    wire::Condition { attribute: Some(attribute) }
}
