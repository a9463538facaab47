//! Texts that rules stand under, and the texts of a request that lead to them.
//!
//! One side must cover the other: whenever a condition agrees with a request, in whichever reading, one of the texts
//! of the request is, begins or ends as one of the condition's keys says. A condition for which that does not hold, or
//! would say little, has no keys. Negated values never have any.

use std::borrow::Cow;
use std::net::IpAddr;

use ambit_types::Identity;
use ipnet::IpNet;

use super::hash::Side;
use crate::http::facts::{Facts, Request};
use crate::http::matcher::{claim_elements, each_line};
use crate::http::model::{Attribute, Condition, Glob, PathMatch, StringMatch};
use crate::http::text::PortText;
use crate::jwt::Claim;

/// Shortest beginning or end that is worth looking for; `/` begins every path.
const PART_BYTES_MIN: usize = 2;

/// A text that a rule asks for.
#[derive(Debug)]
pub(super) struct Key<'r> {
    pub(super) side: Side,
    pub(super) text: Cow<'r, [u8]>,
}

impl<'r> Key<'r> {
    fn whole(text: impl Into<Cow<'r, [u8]>>) -> Self {
        Self { side: Side::Whole, text: text.into() }
    }

    fn part(side: Side, text: impl Into<Cow<'r, [u8]>>) -> Option<Self> {
        let text = text.into();
        (text.len() >= PART_BYTES_MIN).then_some(Self { side, text })
    }

    fn of_text(wanted: &'r StringMatch) -> Option<Self> {
        match wanted {
            StringMatch::Exact(text) => Some(Self::whole(text.as_bytes())),
            StringMatch::Prefix(text) => Self::part(Side::Start, text.as_bytes()),
            StringMatch::Suffix(text) => Self::part(Side::End, text.as_bytes()),
            StringMatch::Presence => None,
        }
    }

    /// In lower case, as hosts are looked for.
    fn of_host(wanted: &'r StringMatch) -> Option<Self> {
        let key = Self::of_text(wanted)?;
        Some(Self { text: key.text.to_ascii_lowercase().into(), ..key })
    }

    fn of_path(wanted: &'r PathMatch) -> Option<Self> {
        match wanted {
            PathMatch::Text(text) => Self::of_text(text),
            PathMatch::Template(template) => Self::part(Side::Start, template.beginning().as_bytes()),
        }
    }

    fn of_glob(glob: &'r Glob) -> Option<Self> {
        match glob.beginning() {
            (text, true) => Some(Self::whole(text.as_bytes())),
            (text, false) => Self::part(Side::Start, text.as_bytes()),
        }
    }

    /// The whole bytes of a range, behind one that tells the families apart.
    fn of_range(range: &IpNet) -> Option<Self> {
        let bytes = usize::from(range.prefix_len()) / 8;
        with_address(range.network(), |text| Self::part(Side::Start, text.get(..=bytes)?.to_vec()))
    }
}

/// The keys of a condition, at least one of which leads to every request that agrees; none where there are no such.
pub(super) fn keys(condition: &Condition) -> Option<Vec<Key<'_>>> {
    use Condition as C;
    match condition {
        C::Principal(v)
        | C::TrustDomain(v)
        | C::Method(v)
        | C::Header(_, v)
        | C::Audience(v)
        | C::Presenter(v)
        | C::Claim(_, v) => all(&v.any, Key::of_text),
        C::Host(v) => all(&v.any, Key::of_host),
        C::Path(v) => all(&v.any, Key::of_path),
        C::Namespace(v) => all(&v.any, Key::of_glob),
        C::ServiceAccount(v) => {
            all(&v.any, |one| Some(Key::whole(format!("{}/{}", one.namespace, one.name).into_bytes())))
        }
        C::SourceIp(v) | C::RemoteIp(v) | C::DestinationIp(v) => all(&v.any, Key::of_range),
        C::DestinationPort(v) => all(&v.any, |port| Some(Key::whole(port.to_be_bytes().to_vec()))),
        C::RequestPrincipal(v) => all(&v.any, |one| one.exact().map(|text| Key::whole(text.as_bytes()))),
        // No request has one.
        C::ServerName(_) => None,
    }
}

/// A key for each value; none if one value has none, or if there are no values.
fn all<'r, T>(values: &'r [T], key: impl Fn(&'r T) -> Option<Key<'r>>) -> Option<Vec<Key<'r>>> {
    if values.is_empty() { None } else { values.iter().map(key).collect() }
}

/// Calls `found` with every text of a request that conditions on the attribute may be about, each in pieces.
pub(super) fn texts(attribute: &Attribute, facts: &Facts<'_>, found: &mut dyn FnMut(&[&[u8]])) {
    use Attribute as A;
    let connection = facts.connection();
    match attribute {
        A::Principal | A::Namespace | A::ServiceAccount | A::TrustDomain => {
            if let Some(peer) = facts.peer() {
                of_peer(attribute, peer, found);
            }
        }
        A::SourceIp => with_address(connection.source(), |text| found(&[text])),
        A::DestinationIp => with_address(connection.destination(), |text| found(&[text])),
        A::RemoteIp => {
            if let Some(ip) = facts.remote() {
                with_address(ip, |text| found(&[text]));
            }
        }
        A::DestinationPort => found(&[&connection.port().to_be_bytes()]),
        A::ServerName => {}
        A::Host
        | A::Method
        | A::Path
        | A::Header(_)
        | A::RequestPrincipal
        | A::Audience
        | A::Presenter
        | A::Claim(_) => {
            if let Some(request) = facts.request() {
                of_request(attribute, request, connection.port(), found);
            }
        }
    }
}

fn of_peer(attribute: &Attribute, peer: &Identity, found: &mut dyn FnMut(&[&[u8]])) {
    use Attribute as A;
    let domain = peer.trust_domain().as_str().as_bytes();
    let (namespace, account) = (peer.namespace().as_bytes(), peer.service_account().as_bytes());
    match attribute {
        A::Principal => found(&[domain, b"/ns/", namespace, b"/sa/", account]),
        A::Namespace => found(&[namespace]),
        A::ServiceAccount => found(&[namespace, b"/", account]),
        A::TrustDomain => found(&[domain]),
        A::SourceIp
        | A::RemoteIp
        | A::DestinationIp
        | A::DestinationPort
        | A::ServerName
        | A::Host
        | A::Method
        | A::Path
        | A::Header(_)
        | A::RequestPrincipal
        | A::Audience
        | A::Presenter
        | A::Claim(_) => {}
    }
}

fn of_request(attribute: &Attribute, request: &Request<'_>, port: u16, found: &mut dyn FnMut(&[&[u8]])) {
    use Attribute as A;
    let target = request.target;
    match attribute {
        A::Host => {
            let authority = target.authority();
            found(&[authority.as_str().as_bytes()]);
            if authority.port().is_some() {
                found(&[authority.host().as_bytes()]);
            } else {
                found(&[authority.host().as_bytes(), PortText::new(port).behind_colon()]);
            }
        }
        A::Method => found(&[target.method().as_bytes()]),
        A::Path => {
            [Some(target.path()), target.bare_path()].into_iter().flatten().for_each(|path| found(&[path]))
        }
        A::Header(name) => each_line(request, name.as_str(), &mut |line| {
            let line = line.trim_ascii();
            found(&[line]);
            if line.contains(&b',') {
                line.split(|b| *b == b',').for_each(|element| found(&[element.trim_ascii()]));
            }
        }),
        A::RequestPrincipal => {
            if let Some((issuer, subject)) = request.token.and_then(|token| token.principal()) {
                found(&[issuer.as_bytes(), b"/", subject.as_bytes()]);
            }
        }
        A::Audience => of_claim(request.token.and_then(|token| token.claims().get("aud")), found),
        A::Presenter => of_claim(request.token.and_then(|token| token.claims().get("azp")), found),
        A::Claim(path) => of_claim(request.token.and_then(|token| token.claims().at(path)), found),
        A::Principal
        | A::Namespace
        | A::ServiceAccount
        | A::TrustDomain
        | A::SourceIp
        | A::RemoteIp
        | A::DestinationIp
        | A::DestinationPort
        | A::ServerName => {}
    }
}

/// The strings of a claim, and the texts of what are no strings.
fn of_claim(claim: Option<&Claim>, found: &mut dyn FnMut(&[&[u8]])) {
    for element in claim.into_iter().flat_map(claim_elements) {
        match element.as_text() {
            Some(text) => found(&[text.as_bytes()]),
            None => {
                if let Some(text) = element.scalar() {
                    found(&[text.as_bytes()]);
                }
            }
        }
    }
}

/// The bytes of an address behind one that tells the families apart.
fn with_address<T>(ip: IpAddr, act: impl FnOnce(&[u8]) -> T) -> T {
    let mut text = [0; 17];
    let octets = match &ip {
        IpAddr::V4(v4) => {
            text[0] = 4;
            text[1..5].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            text[0] = 6;
            text[1..].copy_from_slice(&v6.octets());
            16
        }
    };
    act(&text[..=octets])
}
