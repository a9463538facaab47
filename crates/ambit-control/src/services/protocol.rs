//! What a port carries, by its declared protocol or by its name.

use ambit_types::AppProtocol;
use ambit_types::service::Port;

use crate::input::{EntryPort, ServicePort};

/// Ports whose protocols speak first or cannot be sniffed: SMTP, DNS, MySQL, MongoDB.
const OPAQUE_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// What a service port carries: `appProtocol`, or else what its name begins with.
pub(crate) fn of_port(port: &ServicePort) -> AppProtocol {
    let declared = match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => Some(AppProtocol::Http2),
        Some("kubernetes.io/ws") => Some(AppProtocol::Http11),
        Some("kubernetes.io/wss") => Some(AppProtocol::Tls),
        Some(word) => known(word),
        None => known(prefix(&port.name)),
    };
    let guess = match OPAQUE_PORTS.contains(&port.port) {
        true => AppProtocol::Tcp,
        false => AppProtocol::Unknown,
    };
    declared.unwrap_or(guess)
}

/// Whether a port is declared to carry something else than HTTP.
pub(crate) fn is_no_http(port: &ServicePort) -> bool {
    match of_port(port) {
        AppProtocol::Tcp | AppProtocol::Tls => true,
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => false,
        AppProtocol::Unknown => {
            let word = port.app_protocol.as_deref().unwrap_or_else(|| prefix(&port.name));
            ["mongo", "redis", "mysql"].iter().any(|known| word.eq_ignore_ascii_case(known))
        }
    }
}

/// A port of a service entry with the port of its endpoints.
pub(crate) fn entry_port(port: &EntryPort) -> Port {
    Port {
        service_port: port.number,
        target_port: port.target.unwrap_or(port.number),
        app_protocol: known(&port.protocol).unwrap_or_default(),
    }
}

/// The text before the first dash; `grpc-web` is a protocol of its own.
fn prefix(name: &str) -> &str {
    if name.to_ascii_lowercase().starts_with("grpc-web") {
        return name;
    }
    name.split_once('-').map_or(name, |(before, _)| before)
}

/// A protocol by its word; those the mesh knows but does not tell apart are `Unknown`.
fn known(word: &str) -> Option<AppProtocol> {
    match word.to_ascii_lowercase().as_str() {
        "http" => Some(AppProtocol::Http11),
        "http2" => Some(AppProtocol::Http2),
        "grpc" => Some(AppProtocol::Grpc),
        "https" | "tls" => Some(AppProtocol::Tls),
        "tcp" => Some(AppProtocol::Tcp),
        "grpc-web" | "mongo" | "redis" | "mysql" | "http_proxy" => Some(AppProtocol::Unknown),
        _ => None,
    }
}
