//! Where keys may be fetched from: what a URL may say, and which addresses may be connected to. Pure.
//!
//! Whoever may write a rule chooses a URL that the waypoint then calls (server-side request forgery). A host is judged
//! by the addresses it resolves to, and the connection goes to an address that was judged, so that a second answer of
//! DNS changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_types::Str;
use http::Uri;
use ipnet::IpNet;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// Addresses of clouds' metadata services that are in no range refused anyway.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Which addresses may be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Further ranges that are refused (`AMBIT_BLOCKED_CIDRS_IN_JWKS_URIS`).
    pub blocked: Vec<IpNet>,
    /// Hosts of the control plane, discovery and CA, whose addresses are refused whatever they are at the time.
    pub control: Vec<Str>,
    /// Whether this machine's own addresses are admitted. Default false; for tests, whose issuers are there.
    pub admits_loopback: bool,
}

impl Guard {
    /// Why an address is refused; none if it may be connected to.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        let embedded = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => embedded(v6),
        };
        std::iter::once(address).chain(embedded.map(IpAddr::V4)).find_map(|address| self.refused(address))
    }

    fn refused(&self, address: IpAddr) -> Option<&'static str> {
        if address.is_loopback() {
            return (!self.admits_loopback).then_some("an address of this machine");
        }
        let (is_this_network, is_link_local) = match address {
            IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.is_link_local()),
            IpAddr::V6(v6) => (v6.is_unspecified(), v6.segments()[0] & 0xffc0 == 0xfe80),
        };
        if is_this_network {
            Some("no address of one host")
        } else if is_link_local {
            Some("a link-local address")
        } else if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            Some("an address of many hosts")
        } else if METADATA.contains(&address) {
            Some("a metadata service")
        } else if self.blocked.iter().any(|range| range.contains(&address)) {
            Some("in a range that is blocked")
        } else {
            None
        }
    }
}

/// The IPv4 address that a translator would make of an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056) and addresses that
/// only embed one (RFC 4291 section 2.5.5.1).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(at(high, low)),
        [0x2002, high, low, ..] => Some(at(high, low)),
        // The unspecified address and loopback are judged as such.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(at(high, low)),
        _ => None,
    }
}

/// Why a URL is not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// Neither http nor https, no host, or malformed.
    #[error("this is no http or https URL with a host, of at most {URL_BYTES_MAX} bytes")]
    Shape,
    /// It has a user name.
    #[error("a URL of keys must not have a user name or password")]
    UserInfo,
}

/// A URL that may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether it is https.
    pub(crate) is_https: bool,
    /// The host in lower case, without brackets and without a dot at its end.
    pub(crate) host: Str,
    /// The port, the scheme's own if it says none.
    pub(crate) port: u16,
    /// As in `Host`.
    pub(crate) authority: Str,
    /// Path and query.
    pub(crate) target: Str,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::Shape);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Shape)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(UrlError::Shape),
        };
        let authority = uri.authority().ok_or(UrlError::Shape)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        // An authority that ends in a colon, or has a port that is none, is malformed.
        let has_port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        let port = match (authority.port_u16(), has_port.contains(':')) {
            (Some(port), _) if port != 0 => port,
            (None, false) if is_https => 443,
            (None, false) => 80,
            (Some(_) | None, _) => return Err(UrlError::Shape),
        };
        if host.is_empty() {
            return Err(UrlError::Shape);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let authority = authority.as_str().into();
        Ok(Self { is_https, host: host.into(), port, authority, target: target.into() })
    }

    /// The host names by which the mesh may know the host: itself, and, for `name.namespace` and
    /// `name.namespace.svc`, what the cluster's DNS completes it to.
    pub(crate) fn mesh_hosts(&self, cluster_domain: &str) -> Vec<String> {
        let mut hosts = vec![self.host.to_string()];
        if self.host.parse::<IpAddr>().is_err() {
            match self.host.split('.').collect::<Vec<_>>()[..] {
                [_, _] => hosts.push(format!("{}.svc.{cluster_domain}", self.host)),
                [_, _, "svc"] => hosts.push(format!("{}.{cluster_domain}", self.host)),
                _ => {}
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, Url, UrlError};

    #[test]
    fn addresses_that_no_issuer_has_are_refused() {
        let guard = Guard { blocked: vec!["10.96.0.0/12".parse().unwrap()], ..Guard::default() };
        for refused in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "10.96.0.10",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::10.96.0.1",
            "2002:7f00:1::",
        ] {
            assert!(guard.refusal(refused.parse().unwrap()).is_some(), "{refused}");
        }
        for admitted in ["10.0.0.1", "93.184.216.34", "2606:4700::1", "fd00::1", "64:ff9b::93.184.216.34"] {
            assert_eq!(guard.refusal(admitted.parse().unwrap()), None, "{admitted}");
        }
        let local = Guard { admits_loopback: true, ..Guard::default() };
        assert_eq!(local.refusal("127.0.0.1".parse().unwrap()), None);
        assert!(local.refusal("169.254.169.254".parse().unwrap()).is_some());
    }

    #[test]
    fn urls_are_read_as_they_are_called() {
        let url = Url::parse("https://Issuer.Example./keys?a=b#frag").unwrap();
        assert_eq!((&*url.host, url.port, &*url.target), ("issuer.example", 443, "/keys?a=b"));
        let url = Url::parse("http://[2001:db8::1]:8080").unwrap();
        assert_eq!((&*url.host, url.port, &*url.target), ("2001:db8::1", 8080, "/"));
        assert_eq!(Url::parse("http://[::1]").unwrap().port, 80);
        for bad in [
            "ftp://a/",
            "file:///etc/passwd",
            "/keys",
            "a.b",
            "http://",
            "http://a:/",
            "http://a:0/",
            "http://a:99999/",
            "gopher://a/",
            "http:///x",
            "http://a b/",
        ] {
            assert_eq!(Url::parse(bad), Err(UrlError::Shape), "{bad}");
        }
        for bad in ["http://u:p@a/", "http://a@b/", "https://169.254.169.254@issuer.example/"] {
            assert_eq!(Url::parse(bad), Err(UrlError::UserInfo), "{bad}");
        }
    }

    #[test]
    fn short_names_of_services_are_completed() {
        let hosts = |url: &str| Url::parse(url).unwrap().mesh_hosts("cluster.local");
        assert_eq!(hosts("http://auth.shop/"), ["auth.shop", "auth.shop.svc.cluster.local"]);
        assert_eq!(hosts("http://auth.shop.svc/"), ["auth.shop.svc", "auth.shop.svc.cluster.local"]);
        assert_eq!(hosts("http://a.b.example/"), ["a.b.example"]);
        assert_eq!(hosts("http://10.0.0.1/"), ["10.0.0.1"]);
    }
}
