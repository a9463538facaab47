//! Whom to ask: the nameservers of a `resolv.conf`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::DnsError;

/// Port of DNS.
const PORT: u16 = 53;
/// Nameservers that are asked; the number that the system's own resolver reads.
const SERVERS_MAX: usize = 3;

/// Where it stands whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// In the `nameserver` lines of a file such as `/etc/resolv.conf`, which is read anew for every question: the node
    /// may get others while we run. Its options and search list are not used.
    File(PathBuf),
    /// These.
    These(Vec<SocketAddr>),
}

impl Servers {
    /// The first three, in the order in which they are asked.
    pub(super) fn read(&self) -> Result<Vec<SocketAddr>, DnsError> {
        match self {
            Self::These(all) => Ok(all.iter().copied().take(SERVERS_MAX).collect()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(named(&text)),
                Err(cause) => Err(DnsError::Servers { path: path.clone(), cause: Arc::new(cause) }),
            },
        }
    }
}

/// Addresses of the `nameserver` lines. One with a zone is left out: the pod has other interfaces.
fn named(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT))
    };
    text.lines().filter_map(server).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_as_the_system_reads_them() {
        let rows = [
            ("", ""),
            ("search shop.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n", "10.96.0.10:53"),
            ("nameserver\t10.96.0.10 # cluster\n;nameserver 1.1.1.1\n#nameserver 1.1.1.1", "10.96.0.10:53"),
            ("nameserver ::1\nnameserver fe80::1%eth0\nnameserver dns.example", "[::1]:53"),
            (
                "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
                "1.0.0.1:53 1.0.0.2:53 1.0.0.3:53",
            ),
            ("nameservers 1.0.0.1\nnameserver", ""),
        ];
        for (text, want) in rows {
            let found: Vec<String> = named(text).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found.join(" "), want, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_with_its_name() {
        let error = Servers::File("/nowhere/resolv.conf".into()).read().unwrap_err();
        assert_eq!(error.to_string(), "reading the nameservers from /nowhere/resolv.conf");
    }
}
