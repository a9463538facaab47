//! Filters of flow records, the same for the command line, the API and the proxies that apply them at the source.
//!
//! A filter is a query: `from-pod=shop/web&verdict=denied`. Several names in one value are alternatives
//! (`code=AMB2104,AMB2301`), several keys must all agree, and `not-` before a key turns it round. A value that ends in
//! `*` stands for everything that begins so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use ambit_types::Reason;
use serde_json::Value;

#[cfg(test)]
mod tests;

/// Longest value of a filter, in bytes.
const VALUE_BYTES_MAX: usize = 4096;

/// What a record can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of the record that has its name")]
pub enum Field {
    Time,
    Node,
    Direction,
    Verdict,
    Code,
    Policy,
    Path,
    ConnId,
    SrcAddr,
    SrcWorkload,
    SrcController,
    SrcNamespace,
    SrcIdentity,
    SrcCluster,
    DstAddr,
    DstWorkload,
    DstController,
    DstNamespace,
    DstIdentity,
    DstCluster,
    Service,
    HboneAddr,
    HttpMethod,
    HttpPath,
    HttpAuthority,
    HttpStatus,
    HttpVersion,
    TraceId,
}

/// Something that has the fields of a record.
pub trait Fields {
    /// The text of a field; none if it has none.
    fn field(&self, field: Field) -> Option<Cow<'_, str>>;
}

impl Fields for Value {
    fn field(&self, field: Field) -> Option<Cow<'_, str>> {
        let at: &[&str] = match field {
            Field::Time => &["time"],
            Field::Node => &["node"],
            Field::Direction => &["direction"],
            Field::Verdict => &["verdict"],
            Field::Code => &["code"],
            Field::Policy => &["policy"],
            Field::Path => &["path"],
            Field::ConnId => &["conn_id"],
            Field::SrcAddr => &["src", "addr"],
            Field::SrcWorkload => &["src", "workload"],
            Field::SrcController => &["src", "controller"],
            Field::SrcNamespace => &["src", "namespace"],
            Field::SrcIdentity => &["src", "identity"],
            Field::SrcCluster => &["src", "cluster"],
            Field::DstAddr => &["dst", "addr"],
            Field::DstWorkload => &["dst", "workload"],
            Field::DstController => &["dst", "controller"],
            Field::DstNamespace => &["dst", "namespace"],
            Field::DstIdentity => &["dst", "identity"],
            Field::DstCluster => &["dst", "cluster"],
            Field::Service => &["service"],
            Field::HboneAddr => &["hbone_addr"],
            Field::HttpMethod => &["http", "method"],
            Field::HttpPath => &["http", "path"],
            Field::HttpAuthority => &["http", "authority"],
            Field::HttpStatus => &["http", "status"],
            Field::HttpVersion => &["http", "version"],
            Field::TraceId => &["http", "trace_id"],
        };
        let found = at.iter().try_fold(self, |value, key| value.get(key))?;
        match found {
            Self::String(text) => Some(Cow::Borrowed(text)),
            Self::Number(number) => Some(Cow::Owned(number.to_string())),
            Self::Null | Self::Bool(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }
}

/// What a key of a query looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// One field as it is.
    Is(Field),
    /// `POD` or `NAMESPACE/POD`.
    Pod,
    /// The controller, as `NAME` or `NAMESPACE/NAME`.
    Workload,
    Namespace,
    Identity,
    Cluster,
    Ip,
    Port,
    /// `tcp` of connections, `http` of requests, `http/2` of those of a version.
    Protocol,
    /// The whole host name, its first label, or `NAMESPACE/LABEL`.
    Service,
    /// `true` where TLS ran.
    Encrypted,
}

/// At which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Either,
    From,
    To,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    subject: Subject,
    ends: Ends,
    is_not: bool,
    values: Vec<String>,
}

/// Why a query is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// No such key.
    #[error("{key:?} is no filter; filters are: {}", KEYS.map(|(key, ..)| key).join(", "))]
    Key {
        /// What was given.
        key: String,
    },
    /// A value that cannot be meant.
    #[error("{key}={value:?}: {wanted}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
}

/// Keys, apart from `from-`, `to-` and `not-` before them, and whether they have the first two.
const KEYS: [(&str, Subject, bool); 21] = [
    ("pod", Subject::Pod, true),
    ("workload", Subject::Workload, true),
    ("namespace", Subject::Namespace, true),
    ("identity", Subject::Identity, true),
    ("cluster", Subject::Cluster, true),
    ("ip", Subject::Ip, true),
    ("port", Subject::Port, true),
    ("protocol", Subject::Protocol, false),
    ("service", Subject::Service, false),
    ("node", Subject::Is(Field::Node), false),
    ("direction", Subject::Is(Field::Direction), false),
    ("verdict", Subject::Is(Field::Verdict), false),
    ("code", Subject::Is(Field::Code), false),
    ("policy", Subject::Is(Field::Policy), false),
    ("via", Subject::Is(Field::Path), false),
    ("id", Subject::Is(Field::ConnId), false),
    ("method", Subject::Is(Field::HttpMethod), false),
    ("path", Subject::Is(Field::HttpPath), false),
    ("status", Subject::Is(Field::HttpStatus), false),
    ("trace-id", Subject::Is(Field::TraceId), false),
    ("encrypted", Subject::Encrypted, false),
];

/// Which records are meant. The default takes all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    terms: Vec<Term>,
    since: Option<String>,
    until: Option<String>,
    query: BTreeMap<String, String>,
}

impl Filter {
    /// Reads a query. `since` and `until` are RFC 3339, or how long ago (`5m`) counted from `now`.
    ///
    /// # Errors
    /// [`FilterError`] names what is no filter.
    pub fn from_query(query: &BTreeMap<String, String>, now: SystemTime) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (key, value) in query {
            let wrong = |wanted| FilterError::Value { key: key.clone(), value: value.clone(), wanted };
            if value.len() > VALUE_BYTES_MAX {
                return Err(wrong("at most 4096 bytes"));
            }
            let kept = match &**key {
                "since" => filter.since.insert(moment(value, now).ok_or_else(|| wrong(MOMENT))?).clone(),
                "until" => filter.until.insert(moment(value, now).ok_or_else(|| wrong(MOMENT))?).clone(),
                _ => {
                    filter.terms.push(Term::read(key, value)?);
                    value.clone()
                }
            };
            filter.query.insert(key.clone(), kept);
        }
        Ok(filter)
    }

    /// The query it was read from; moments are absolute.
    pub fn query(&self) -> &BTreeMap<String, String> {
        &self.query
    }

    /// Whether a record is meant.
    pub fn passes(&self, record: &impl Fields) -> bool {
        let in_time = || {
            if self.since.is_none() && self.until.is_none() {
                return true;
            }
            // Times of records are RFC 3339 in UTC with milliseconds, and so are ours: texts compare as moments.
            let Some(time) = record.field(Field::Time) else { return false };
            self.since.as_ref().is_none_or(|since| **since <= *time)
                && self.until.as_ref().is_none_or(|until| *time <= **until)
        };
        self.terms.iter().all(|term| term.holds(record)) && in_time()
    }
}

const MOMENT: &str = "a time such as 2026-01-02T03:04:05Z, or how long ago, such as 5m";

fn moment(text: &str, now: SystemTime) -> Option<String> {
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => at,
        Err(_) => now.checked_sub(humantime::parse_duration(text).ok()?)?,
    };
    Some(humantime::format_rfc3339_millis(at).to_string())
}

impl Term {
    fn read(key: &str, value: &str) -> Result<Self, FilterError> {
        let (is_not, rest) = key.strip_prefix("not-").map_or((false, key), |rest| (true, rest));
        let (ends, name) = match (rest.strip_prefix("from-"), rest.strip_prefix("to-")) {
            (Some(name), _) => (Ends::From, name),
            (None, Some(name)) => (Ends::To, name),
            (None, None) => (Ends::Either, rest),
        };
        let known = KEYS.iter().find(|(known, _, both)| *known == name && (*both || ends == Ends::Either));
        let Some((_, subject, _)) = known else { return Err(FilterError::Key { key: key.to_owned() }) };
        let values = value.split(',').map(str::trim).filter(|value| !value.is_empty());
        let values = values.map(|value| subject.value(key, value)).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            let (key, value) = (key.to_owned(), value.to_owned());
            return Err(FilterError::Value { key, value, wanted: "at least one value" });
        }
        Ok(Self { subject: *subject, ends, is_not, values })
    }

    fn holds(&self, record: &impl Fields) -> bool {
        let at = |from: bool| self.values.iter().any(|value| self.subject.agrees(record, value, from));
        let holds = match self.ends {
            Ends::Either => at(true) || at(false),
            Ends::From => at(true),
            Ends::To => at(false),
        };
        holds != self.is_not
    }
}

impl Subject {
    /// A value as it is compared, if it can be meant.
    fn value(self, key: &str, value: &str) -> Result<String, FilterError> {
        let wrong = |wanted| Err(FilterError::Value { key: key.to_owned(), value: value.to_owned(), wanted });
        match self {
            Self::Is(Field::Code) => match value.parse::<Reason>() {
                Ok(reason) => Ok(reason.code().to_owned()),
                Err(_) => wrong("no such code or reason; `ambit why` lists them"),
            },
            Self::Is(Field::Verdict) if !matches!(value, "allowed" | "denied") => wrong("allowed or denied"),
            Self::Is(Field::Direction) if !matches!(value, "inbound" | "outbound") => {
                wrong("inbound or outbound")
            }
            Self::Encrypted if !matches!(value, "true" | "false") => wrong("true or false"),
            Self::Protocol if !matches!(value, "tcp" | "http") && !value.starts_with("http/") => {
                wrong("tcp, http, or a version such as http/2")
            }
            Self::Port if value.parse::<u16>().is_err() => wrong("a port"),
            Self::Ip
                if value.trim_end_matches('*').parse::<std::net::IpAddr>().is_err()
                    && !value.ends_with('*') =>
            {
                wrong("an address")
            }
            Self::Is(_)
            | Self::Pod
            | Self::Workload
            | Self::Protocol
            | Self::Namespace
            | Self::Identity
            | Self::Cluster
            | Self::Ip
            | Self::Port
            | Self::Service
            | Self::Encrypted => Ok(value.to_owned()),
        }
    }

    fn agrees(self, record: &impl Fields, value: &str, from: bool) -> bool {
        let end = |src, dst| record.field(if from { src } else { dst }).unwrap_or_default();
        let namespace = || end(Field::SrcNamespace, Field::DstNamespace);
        match self {
            Self::Is(field) => matches(value, &record.field(field).unwrap_or_default()),
            Self::Pod => is_named(value, &end(Field::SrcWorkload, Field::DstWorkload), namespace),
            Self::Workload => is_named(value, &end(Field::SrcController, Field::DstController), namespace),
            Self::Protocol => {
                let is_http = record.field(Field::HttpMethod).is_some();
                match value {
                    "tcp" => !is_http,
                    "http" => is_http,
                    version => {
                        let of_request = record.field(Field::HttpVersion).unwrap_or_default();
                        of_request.eq_ignore_ascii_case(version)
                    }
                }
            }
            Self::Namespace => matches(value, &namespace()),
            Self::Identity => matches(value, &end(Field::SrcIdentity, Field::DstIdentity)),
            Self::Cluster => matches(value, &end(Field::SrcCluster, Field::DstCluster)),
            Self::Ip => {
                let address = end(Field::SrcAddr, Field::DstAddr);
                matches(value, address.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']'])))
            }
            Self::Port => {
                let target = (!from).then(|| record.field(Field::HboneAddr)).flatten();
                let address = target.unwrap_or_else(|| end(Field::SrcAddr, Field::DstAddr));
                address.rsplit_once(':').is_some_and(|(_, port)| port == value)
            }
            Self::Service => is_service(value, &record.field(Field::Service).unwrap_or_default()),
            Self::Encrypted => {
                let path = record.field(Field::Path).unwrap_or_default();
                matches!(&*path, "hbone" | "waypoint") == (value == "true")
            }
        }
    }
}

/// Whether a text is the one that is wanted, or begins as it does.
fn matches(wanted: &str, text: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => wanted == text,
    }
}

/// Whether something is called so, as `NAME` or `NAMESPACE/NAME`.
fn is_named<'n>(wanted: &str, name: &str, namespace: impl Fn() -> Cow<'n, str>) -> bool {
    match wanted.split_once('/') {
        Some((in_namespace, wanted)) => matches(in_namespace, &namespace()) && matches(wanted, name),
        None => matches(wanted, name),
    }
}

fn is_service(wanted: &str, host: &str) -> bool {
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    match wanted.split_once('/') {
        Some((in_namespace, wanted)) => matches(in_namespace, namespace) && matches(wanted, name),
        None => matches(wanted, host) || matches(wanted, name),
    }
}
