//! Texts of a policy read into values, every mistake noted with its field.

use std::net::{IpAddr, Ipv6Addr};

use ambit_types::{PolicyKey, Str};
use ipnet::{IpNet, Ipv4Net};

use super::{Options, RULES_MAX, SERVICE_ACCOUNTS_MAX, VALUE_BYTES_MAX, VALUES_MAX, path};
use crate::http::model::{
    Condition, Glob, PathMatch, RequestPrincipal, ServiceAccount, StringMatch, Template, Values,
};
use crate::http::problem::{Invalid, Problem};
use crate::http::set::CustomOrder;
use crate::http::text::text_match;
use crate::http::written;

/// Longest service account in a list, in bytes (Istio's bound).
const SERVICE_ACCOUNT_BYTES_MAX: usize = 320;

/// The two lists of one attribute, and where they stand.
pub(super) struct Lists<'w> {
    any_at: String,
    any: &'w [String],
    none_at: String,
    none: &'w [String],
}

impl<'w> Lists<'w> {
    /// Lists `name` and `notName` of the object at `at`.
    pub(super) fn of(at: &str, name: &str, any: &'w [String], none: &'w [String]) -> Self {
        let (first, rest) = name.split_at(1);
        let none_at = format!("{at}.not{}{rest}", first.to_ascii_uppercase());
        Self { any_at: format!("{at}.{name}"), any, none_at, none }
    }
}

/// Reads the values of one policy.
pub(super) struct Reader<'a> {
    key: &'a PolicyKey,
    options: &'a Options,
    action: written::Action,
    invalid: Vec<Invalid>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(key: &'a PolicyKey, options: &'a Options, action: written::Action) -> Self {
        Self { key, options, action, invalid: Vec::new() }
    }

    /// What was wrong, in the order met.
    pub(super) fn finish(self) -> Vec<Invalid> {
        self.invalid
    }

    pub(super) fn bad(&mut self, at: &str, problem: Problem) {
        self.invalid.push(Invalid { at: at.to_owned(), problem });
    }

    /// Notes that a field is missing, and gives nothing in its place.
    pub(super) fn missing<T>(&mut self, at: &str) -> Vec<T> {
        self.bad(at, Problem::Missing);
        Vec::new()
    }

    pub(super) fn at_most(&mut self, at: &str, count: usize, max: usize) {
        if count > max {
            self.bad(at, Problem::TooMany { count, max });
        }
    }

    /// Reads a list that must not be empty, element by element.
    pub(super) fn elements<T, U>(
        &mut self,
        at: &str,
        list: &[T],
        mut read: impl FnMut(&mut Self, &str, &T) -> U,
    ) -> Vec<U> {
        if list.is_empty() {
            self.bad(at, Problem::EmptyList);
        }
        self.at_most(at, list.len(), RULES_MAX);
        let bounded = list.iter().take(RULES_MAX).enumerate();
        bounded.map(|(index, one)| read(self, &format!("{at}[{index}]"), one)).collect()
    }

    /// The conditions that were written; a source or operation without any is a mistake.
    pub(super) fn something<const N: usize>(
        &mut self,
        at: &str,
        conditions: [Option<Condition>; N],
    ) -> Vec<Condition> {
        let written: Vec<Condition> = conditions.into_iter().flatten().collect();
        if written.is_empty() {
            self.bad(at, Problem::NamesNothing);
        }
        written
    }

    /// Notes a question about the token where it is not looked at yet.
    pub(super) fn token_in_time(&mut self, at: &str, field: &str, asked: bool) {
        let early = self.options.custom_order == CustomOrder::BeforeToken;
        if asked && early && self.action == written::Action::Custom {
            self.bad(&format!("{at}.{field}"), Problem::TokenBeforeCustom);
        }
    }

    /// Identities, those of the mesh's own trust domain under each of its names.
    pub(super) fn principals(&mut self, lists: &Lists<'_>) -> Option<Values<StringMatch>> {
        let mut values = self.values(lists, principal)?;
        values.any = self.in_every_trust_domain(values.any);
        values.none = self.in_every_trust_domain(values.none);
        Some(values)
    }

    /// Service accounts, of the policy's namespace unless they name another.
    pub(super) fn accounts(&mut self, lists: &Lists<'_>) -> Option<Values<ServiceAccount>> {
        self.at_most(&lists.any_at, lists.any.len(), SERVICE_ACCOUNTS_MAX);
        self.at_most(&lists.none_at, lists.none.len(), SERVICE_ACCOUNTS_MAX);
        let namespace = &self.key.namespace;
        self.values(lists, |text| account(namespace, text))
    }

    /// Paths and templates that a normalised request can have.
    pub(super) fn paths(&mut self, lists: &Lists<'_>) -> Option<Values<PathMatch>> {
        let normalization = self.options.normalization;
        self.values(lists, |text| match path::fault(text, normalization) {
            Some(fault) => Err(Problem::PathNeverComes(fault)),
            None if Template::is_template(text) => {
                Template::parse(text).map(PathMatch::Template).map_err(Problem::Template)
            }
            None => Ok(PathMatch::Text(text_match(text))),
        })
    }

    /// Principals of the mesh's trust domain under each of its names.
    fn in_every_trust_domain(&self, principals: Vec<StringMatch>) -> Vec<StringMatch> {
        let own = &self.options.trust_domain;
        let names: Vec<&str> =
            [own].into_iter().chain(&self.options.trust_domain_aliases).map(|d| d.as_str()).collect();
        let is_own = |domain: &str| domain == "cluster.local" || names.contains(&domain);
        let renamed = |text: &Str, make: fn(Str) -> StringMatch| match text.split_once('/') {
            Some((domain, rest)) if is_own(domain) => {
                names.iter().map(|name| make(format!("{name}/{rest}").into())).collect()
            }
            Some(_) | None => vec![make(text.clone())],
        };
        let every = principals.into_iter().flat_map(|one| match &one {
            StringMatch::Exact(text) => renamed(text, StringMatch::Exact),
            StringMatch::Prefix(text) => renamed(text, StringMatch::Prefix),
            StringMatch::Suffix(_) | StringMatch::Presence => vec![one],
        });
        every.collect()
    }

    /// Both lists of an attribute; nothing where neither was written.
    pub(super) fn values<T>(
        &mut self,
        lists: &Lists<'_>,
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Values<T>> {
        if lists.any.is_empty() && lists.none.is_empty() {
            return None;
        }
        let any = self.list(&lists.any_at, lists.any, &read);
        let none = self.list(&lists.none_at, lists.none, &read);
        Some(Values { any, none })
    }

    fn list<T>(&mut self, at: &str, texts: &[String], read: &impl Fn(&str) -> Result<T, Problem>) -> Vec<T> {
        self.at_most(at, texts.len(), VALUES_MAX);
        let mut values = Vec::with_capacity(texts.len().min(VALUES_MAX));
        for (index, text) in texts.iter().take(VALUES_MAX).enumerate() {
            let value = match text.len() {
                0 => Err(Problem::EmptyText),
                bytes if bytes > VALUE_BYTES_MAX => Err(Problem::TooLong { bytes, max: VALUE_BYTES_MAX }),
                _ => read(text),
            };
            match value {
                Ok(value) => values.push(value),
                Err(problem) => self.bad(&format!("{at}[{index}]"), problem),
            }
        }
        values
    }
}

/// `*`, `x*`, `*x` or `x`.
pub(super) fn text(text: &str) -> Result<StringMatch, Problem> {
    Ok(text_match(text))
}

/// A host with or without port. Requests come without the trailing dot.
pub(super) fn host(text: &str) -> Result<StringMatch, Problem> {
    Ok(text_match(text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(text)))
}

pub(super) fn port(text: &str) -> Result<u16, Problem> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(Problem::Port)
}

pub(super) fn namespace(text: &str) -> Result<Glob, Problem> {
    if text.contains('/') { Err(Problem::NamespaceSlash) } else { Ok(Glob::new(text)) }
}

pub(super) fn request_principal(text: &str) -> Result<RequestPrincipal, Problem> {
    RequestPrincipal::parse(text).ok_or(Problem::RequestPrincipal)
}

fn principal(text: &str) -> Result<StringMatch, Problem> {
    // With its scheme the text would match nobody, and a DENY would never fire.
    if text.starts_with("spiffe://") { Err(Problem::PrincipalScheme) } else { Ok(text_match(text)) }
}

fn account(namespace: &Str, text: &str) -> Result<ServiceAccount, Problem> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Str::from(namespace), name),
        None => (namespace.clone(), text),
    };
    let well = !namespace.is_empty() && !name.is_empty() && !name.contains('/') && !text.contains('*');
    match text.len() {
        bytes if bytes > SERVICE_ACCOUNT_BYTES_MAX => {
            Err(Problem::TooLong { bytes, max: SERVICE_ACCOUNT_BYTES_MAX })
        }
        _ if well => Ok(ServiceAccount { namespace, name: name.into() }),
        _ => Err(Problem::ServiceAccount),
    }
}

pub(super) fn trust_domain(text: &str) -> Result<StringMatch, Problem> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if inner.contains(['/', '*']) { Err(Problem::TrustDomain) } else { Ok(text_match(text)) }
}

/// An address or a range; host bits are cleared.
pub(super) fn range(text: &str) -> Result<IpNet, Problem> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let net: IpNet = text.parse().or_else(|_| address()).map_err(|_| Problem::Range)?;
    Ok(unmapped(net.trunc()))
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
