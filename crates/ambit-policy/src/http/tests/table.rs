//! The form of `tests/tables/http_policy.yaml`, which its head describes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::{Identity, IdentityError, TrustDomain};
use serde::Deserialize;
use serde_json::Value;

use crate::http::{Answer, CustomOrder, Options, written};
use crate::jwt::{Claims, Verified};
use crate::normalize::{self, Ambiguity, Normalization, Received};

const TABLE: &str = include_str!("../../../../../tests/tables/http_policy.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) groups: Vec<Group>,
    pub(super) truth: Vec<Truth>,
    pub(super) rejected: Vec<Rejected>,
}

impl Table {
    pub(super) fn read() -> Self {
        serde_saphyr::from_str(TABLE).unwrap_or_else(|error| panic!("http_policy.yaml: {error}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: String,
    #[serde(default)]
    pub(super) settings: Settings,
    pub(super) given: Vec<Given>,
    pub(super) when: Vec<Row>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    normalization: Option<String>,
    ambiguity: Option<String>,
    custom_order: Option<String>,
    pub(super) trusted_hops: u8,
    trust_domain: Option<String>,
    aliases: Vec<String>,
}

impl Settings {
    fn normalization(&self) -> Normalization {
        match self.normalization.as_deref() {
            None | Some("merge-slashes") => Normalization::MergeSlashes,
            Some("none") => Normalization::None,
            Some("base") => Normalization::Base,
            Some("decode-and-merge-slashes") => Normalization::DecodeAndMergeSlashes,
            Some(other) => panic!("normalization {other}"),
        }
    }

    pub(super) fn custom_order(&self) -> CustomOrder {
        match self.custom_order.as_deref() {
            None | Some("after-token") => CustomOrder::AfterToken,
            Some("before-token") => CustomOrder::BeforeToken,
            Some(other) => panic!("customOrder {other}"),
        }
    }

    pub(super) fn normalize_options(&self) -> normalize::Options {
        let ambiguity = match self.ambiguity.as_deref() {
            None | Some("refuse") => Ambiguity::Refuse,
            Some("keep") => Ambiguity::Keep,
            Some(other) => panic!("ambiguity {other}"),
        };
        normalize::Options { normalization: self.normalization(), ambiguity, ..normalize::Options::default() }
    }

    pub(super) fn compile_options(&self) -> Options {
        let domain = |name: &String| TrustDomain::parse(name).unwrap();
        Options {
            normalization: self.normalization(),
            custom_order: self.custom_order(),
            trust_domain: self.trust_domain.as_ref().map(domain).unwrap_or_default(),
            trust_domain_aliases: self.aliases.iter().map(domain).collect(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Given {
    #[serde(rename = "AuthorizationPolicy")]
    pub(super) authorization: Option<String>,
    pub(super) missing: Option<String>,
    pub(super) spec: written::Policy,
    pub(super) dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rejected {
    pub(super) name: String,
    #[serde(default)]
    pub(super) settings: Settings,
    pub(super) spec: written::Policy,
    #[serde(default)]
    pub(super) dry_run: bool,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) name: String,
    from: String,
    source: String,
    pub(super) destination: String,
    pub(super) port: u16,
    method: String,
    scheme: Option<String>,
    authority: Option<String>,
    host: String,
    hosts: Option<Vec<String>>,
    path: String,
    protocol: Option<String>,
    headers: Vec<[String; 2]>,
    token: Option<Value>,
    answers: BTreeMap<String, String>,
    pub(super) tcp: bool,
    pub(super) sni: Option<String>,
    pub(super) expect: Expect,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            name: String::new(),
            from: "shop/cart".to_owned(),
            source: "10.244.0.7".to_owned(),
            destination: "10.96.0.9".to_owned(),
            port: 80,
            method: "GET".to_owned(),
            scheme: None,
            authority: None,
            host: "web.shop".to_owned(),
            hosts: None,
            path: "/".to_owned(),
            protocol: None,
            headers: Vec::new(),
            token: None,
            answers: BTreeMap::new(),
            tcp: false,
            sni: None,
            expect: Expect::default(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expect {
    pub(super) verdict: String,
    pub(super) code: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) rule: Option<usize>,
    pub(super) why: Option<String>,
    pub(super) asks: Vec<String>,
    pub(super) audit: Vec<String>,
    pub(super) dry_run: Vec<String>,
}

impl Row {
    pub(super) fn peer(&self) -> Result<Option<Identity>, IdentityError> {
        if self.from == "plain" {
            return Ok(None);
        }
        if self.from.starts_with("spiffe:") {
            return Identity::parse(&self.from).map(Some);
        }
        let (domain, account) = self.from.split_once(':').unwrap_or(("cluster.local", &self.from));
        let (namespace, name) = account.split_once('/').unwrap();
        Identity::parse(&format!("spiffe://{domain}/ns/{namespace}/sa/{name}")).map(Some)
    }

    pub(super) fn source(&self) -> IpAddr {
        self.source.parse().unwrap()
    }

    pub(super) fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.headers.iter().map(|[name, value]| (name.clone(), bytes(value))).collect()
    }

    pub(super) fn token(&self) -> Option<Verified> {
        let json = self.token.as_ref()?.to_string();
        Some(Verified::unchecked(Claims::parse(json.as_bytes()).unwrap()))
    }

    pub(super) fn answers(&self) -> Vec<(String, Answer)> {
        let answer = |(name, said): (&String, &String)| {
            let answer = match &**said {
                "allowed" => Answer::Allowed,
                "denied" => Answer::Denied,
                "unavailable" => Answer::Unavailable,
                other => panic!("answer {other}"),
            };
            (name.clone(), answer)
        };
        self.answers.iter().map(answer).collect()
    }

    pub(super) fn received(&self) -> Owned {
        let hosts = self.hosts.clone().unwrap_or_else(|| vec![self.host.clone()]);
        Owned {
            method: bytes(&self.method),
            scheme: self.scheme.as_deref().map(bytes),
            authority: self.authority.as_deref().map(bytes),
            hosts: hosts.iter().map(|host| bytes(host)).collect(),
            path: (!self.path.is_empty()).then(|| bytes(&self.path)),
            protocol: self.protocol.as_deref().map(bytes),
        }
    }
}

/// What came on the wire, kept.
pub(super) struct Owned {
    method: Vec<u8>,
    scheme: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    hosts: Vec<Vec<u8>>,
    path: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
}

impl Owned {
    pub(super) fn hosts(&self) -> Vec<&[u8]> {
        self.hosts.iter().map(|host| &host[..]).collect()
    }

    pub(super) fn as_received<'a>(&'a self, hosts: &'a [&'a [u8]]) -> Received<'a> {
        Received {
            method: &self.method,
            scheme: self.scheme.as_deref(),
            authority: self.authority.as_deref(),
            hosts,
            path: self.path.as_deref(),
            protocol: self.protocol.as_deref(),
        }
    }
}

/// A text in which `\xNN` is the byte NN.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|digits| digits.get(..2)).filter(|_| *first == b'\\');
        let byte = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Truth {
    pub(super) attribute: String,
    key: String,
    pub(super) kinds: BTreeMap<String, String>,
    pub(super) facts: BTreeMap<String, Row>,
    pub(super) rows: Vec<[String; 5]>,
}

impl Truth {
    /// The only policy: this action with this value in this list.
    pub(super) fn group(&self, action: &str, list: &str, value: &str) -> Group {
        let (values, not_values) = match list {
            "values" => (vec![value.to_owned()], Vec::new()),
            "notValues" => (Vec::new(), vec![value.to_owned()]),
            other => panic!("list {other}"),
        };
        let action = if action == "DENY" { written::Action::Deny } else { written::Action::Allow };
        let when = written::Condition { key: self.key.clone(), values, not_values };
        let rule = written::Rule { when: Some(vec![when]), ..written::Rule::default() };
        let spec = written::Policy { action, rules: Some(vec![rule]), ..written::Policy::default() };
        let given = Given { authorization: Some("shop/truth".to_owned()), spec, ..Given::default() };
        Group { name: String::new(), settings: Settings::default(), given: vec![given], when: Vec::new() }
    }
}
