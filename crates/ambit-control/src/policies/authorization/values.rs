//! Texts of a policy read into values, with a list of what could not be.
//!
//! A value that cannot be read takes its whole list along: the rest of a list of wanted values would be narrower
//! than written, and nothing is as wide as a DENY has to be.

use std::net::{IpAddr, Ipv6Addr};

use ambit_policy::model::{Match, ServiceAccount, StringMatch, Values};
use ambit_types::Str;
use ipnet::{IpNet, Ipv4Net};

use crate::input::{Condition, Terms};

/// Reads the values of one rule.
pub(super) struct Reader<'a> {
    namespace: &'a Str,
    unevaluable: Vec<Str>,
}

impl<'a> Reader<'a> {
    /// A reader for a policy of this namespace.
    pub(super) fn new(namespace: &'a Str) -> Self {
        Self { namespace, unevaluable: Vec::new() }
    }

    /// Names of what could not be evaluated, in the order met.
    pub(super) fn finish(self) -> Vec<Str> {
        self.unevaluable
    }

    /// Notes an attribute this layer has no facts for.
    pub(super) fn beyond(&mut self, wanted: &str, unwanted: &str, terms: &Terms) {
        if !terms.any.is_empty() {
            self.unevaluable.push(Str::from(wanted));
        }
        if !terms.none.is_empty() {
            self.unevaluable.push(Str::from(unwanted));
        }
    }

    /// Names of namespaces.
    pub(super) fn texts(&mut self, wanted: &str, unwanted: &str, terms: &Terms) -> Values<StringMatch> {
        self.values(wanted, unwanted, terms, text)
    }

    /// Identities without their scheme.
    pub(super) fn principals(&mut self, wanted: &str, unwanted: &str, terms: &Terms) -> Values<StringMatch> {
        // With its scheme the text would match nobody, and a DENY would never fire.
        self.values(wanted, unwanted, terms, |t| if t.starts_with("spiffe://") { None } else { text(t) })
    }

    /// Trust domains as what identities begin with.
    pub(super) fn trust_domains(&mut self, terms: &Terms) -> Values<StringMatch> {
        self.values("trustDomains", "notTrustDomains", terms, trust_domain)
    }

    /// Service accounts, of the policy's namespace unless they name another.
    pub(super) fn accounts(&mut self, wanted: &str, unwanted: &str, terms: &Terms) -> Values<ServiceAccount> {
        let namespace = self.namespace;
        self.values(wanted, unwanted, terms, |t| account(namespace, t))
    }

    /// Addresses and ranges.
    pub(super) fn ranges(&mut self, wanted: &str, unwanted: &str, terms: &Terms) -> Values<IpNet> {
        self.values(wanted, unwanted, terms, range)
    }

    /// Port numbers.
    pub(super) fn ports(&mut self, wanted: &str, unwanted: &str, terms: &Terms) -> Values<u16> {
        self.values(wanted, unwanted, terms, |t| t.parse().ok().filter(|port| *port != 0))
    }

    /// A `when` condition; empty if it compares something this layer has no facts for.
    pub(super) fn condition(&mut self, condition: &Condition) -> Match {
        let terms = &condition.values;
        let key = &*condition.key;
        let not = format!("not {key}");
        let mut one = Match::default();
        match key {
            "source.ip" => one.source_ips = self.ranges(key, &not, terms),
            "source.namespace" => one.namespaces = self.texts(key, &not, terms),
            "source.principal" => one.principals = self.principals(key, &not, terms),
            "source.serviceAccount" => one.service_accounts = self.accounts(key, &not, terms),
            "source.trustDomain" => one.principals = self.values(key, &not, terms, trust_domain),
            "destination.ip" => one.destination_ips = self.ranges(key, &not, terms),
            "destination.port" => one.destination_ports = self.ports(key, &not, terms),
            _ => self.unevaluable.push(condition.key.clone()),
        }
        one
    }

    fn values<T>(
        &mut self,
        wanted: &str,
        unwanted: &str,
        terms: &Terms,
        read: impl Fn(&str) -> Option<T>,
    ) -> Values<T> {
        Values { any: self.list(wanted, &terms.any, &read), none: self.list(unwanted, &terms.none, &read) }
    }

    fn list<T>(&mut self, name: &str, texts: &[Str], read: &impl Fn(&str) -> Option<T>) -> Vec<T> {
        let unread = texts.iter().find(|text| read(text).is_none());
        match unread {
            Some(text) => {
                self.unevaluable.push(Str::from(format!("{name} {text:?}")));
                Vec::new()
            }
            None => texts.iter().filter_map(|text| read(text)).collect(),
        }
    }
}

/// `*`, `x*`, `*x` or `x`; dots and inner stars are literal.
fn text(text: &str) -> Option<StringMatch> {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        // An empty text would agree with the namespace of a peer that has none.
        ("", ..) => None,
        ("*", ..) => Some(StringMatch::Presence),
        (_, Some(suffix), _) => Some(StringMatch::Suffix(Str::from(suffix))),
        (_, None, Some(prefix)) => Some(StringMatch::Prefix(Str::from(prefix))),
        (exact, None, None) => Some(StringMatch::Exact(Str::from(exact))),
    }
}

/// What an identity of the domain begins with; a domain given by its end cannot be said so.
fn trust_domain(domain: &str) -> Option<StringMatch> {
    if domain.contains('/') {
        return None;
    }
    match text(domain)? {
        StringMatch::Exact(exact) => Some(StringMatch::Prefix(Str::from(format!("{exact}/")))),
        StringMatch::Prefix(prefix) => Some(StringMatch::Prefix(prefix)),
        StringMatch::Presence => Some(StringMatch::Presence),
        StringMatch::Suffix(_) => None,
    }
}

fn account(namespace: &Str, text: &str) -> Option<ServiceAccount> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Str::from(namespace), name),
        None => (namespace.clone(), text),
    };
    let readable = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    readable.then(|| ServiceAccount { namespace, name: Str::from(name) })
}

fn range(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(unmapped(net.trunc()))
}

/// IPv4-mapped ranges as the IPv4 ranges they are: facts hold unwrapped addresses.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = Ipv6Addr::to_ipv4_mapped(&v6.network());
    let prefix = v6.prefix_len().checked_sub(96);
    match (mapped, prefix) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(net, IpNet::V4),
        (Some(_) | None, _) => net,
    }
}
