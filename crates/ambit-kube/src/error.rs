//! What goes wrong between us and an API server, in words a person can act on.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::resource::Resource;

/// One request: a verb on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The verb as RBAC names it, such as `patch`.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural of the kind, with the subresource if there is one, such as `gateways/status`.
    pub resource: String,
    /// Namespace; none for the whole cluster.
    pub namespace: Option<String>,
    /// Name of one object.
    pub name: Option<String>,
}

impl Call {
    /// A request for a resource.
    pub fn new(verb: &'static str, resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> Self {
        Self {
            verb,
            group: resource.group.clone(),
            resource: resource.plural.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        }
    }

    /// The same for a part of the object, such as `status`.
    #[must_use]
    pub fn part(mut self, subresource: &str) -> Self {
        self.resource = format!("{}/{subresource}", self.resource);
        self
    }

    /// The RBAC rule that allows it, in words.
    pub fn rule(&self) -> String {
        let place = match &self.namespace {
            Some(namespace) => format!("a Role of namespace {namespace} or a ClusterRole"),
            None => "a ClusterRole".to_owned(),
        };
        let Self { verb, group, resource, .. } = self;
        format!("apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"] in {place}")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        match (namespace, name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
            (None, Some(name)) => write!(f, " {name}"),
            (Some(namespace), None) => write!(f, " in namespace {namespace}"),
            (None, None) => write!(f, " of the cluster"),
        }
    }
}

/// Why something could not be done with an API server.
#[derive(Debug, Error)]
pub enum KubeError {
    /// No way to an API server is known.
    #[error(
        "no API server is known: {0}; name a file with --kubeconfig, or run as a pod with a service account"
    )]
    Config(String),
    /// HTTP 401.
    #[error(
        "{call}: the API server does not know us (HTTP 401): {message}; the token may have expired or be of another cluster"
    )]
    Unauthorized {
        /// What was asked.
        call: Box<Call>,
        /// The server's words.
        message: String,
    },
    /// HTTP 403.
    #[error("{call}: refused (HTTP 403): {message}; the missing RBAC rule: {}", call.rule())]
    Forbidden {
        /// What was asked.
        call: Box<Call>,
        /// The server's words.
        message: String,
    },
    /// HTTP 404.
    #[error("{call}: there is no such object or kind (HTTP 404): {message}")]
    NotFound {
        /// What was asked.
        call: Box<Call>,
        /// The server's words.
        message: String,
    },
    /// HTTP 409: somebody else changed it, owns the field, or made it before.
    #[error("{call}: in conflict with another writer (HTTP 409): {message}")]
    Conflict {
        /// What was asked.
        call: Box<Call>,
        /// The server's words.
        message: String,
    },
    /// Any other answer that is none.
    #[error("{call}: failed (HTTP {status}): {message}")]
    Status {
        /// What was asked.
        call: Box<Call>,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// There was no answer.
    #[error("{call}: the API server cannot be reached: {cause}")]
    Unreachable {
        /// What was asked.
        call: Box<Call>,
        /// Why.
        cause: String,
    },
    /// There was no answer in time.
    #[error("{call}: no answer within {after:?}")]
    TimedOut {
        /// What was asked.
        call: Box<Call>,
        /// How long we waited.
        after: Duration,
    },
    /// The answer is not what the API prescribes.
    #[error("{call}: the answer cannot be read: {cause}")]
    Answer {
        /// What was asked.
        call: Box<Call>,
        /// Why.
        cause: String,
    },
    /// A kind that is not in the table.
    #[error("the kind {kind:?} of {api_version:?} is not one that is written here")]
    UnknownKind {
        /// Its apiVersion.
        api_version: String,
        /// Its name.
        kind: String,
    },
    /// An object that lacks what a request needs.
    #[error("the object cannot be written: its field {0} is missing or not a text")]
    Incomplete(&'static str),
}

impl KubeError {
    /// What a failed request means.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else goes wrong, there was no answer")]
    pub fn of(call: &Call, error: kube::Error) -> Self {
        let call = Box::new(call.clone());
        match error {
            kube::Error::Api(status) => Self::of_status(call, status.code, status.message),
            kube::Error::SerdeError(cause) => Self::Answer { call, cause: cause.to_string() },
            kube::Error::FromUtf8(cause) => Self::Answer { call, cause: cause.to_string() },
            kube::Error::BuildRequest(cause) => Self::Answer { call, cause: chain(&cause) },
            other => Self::Unreachable { call, cause: chain(&other) },
        }
    }

    /// What an answer of this HTTP status means.
    pub fn of_status(call: Box<Call>, status: u16, message: String) -> Self {
        match status {
            401 => Self::Unauthorized { call, message },
            403 => Self::Forbidden { call, message },
            404 => Self::NotFound { call, message },
            409 => Self::Conflict { call, message },
            status => Self::Status { call, status, message },
        }
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::NotFound { .. } => Some(404),
            Self::Conflict { .. } => Some(409),
            Self::Status { status, .. } => Some(*status),
            Self::Config(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Answer { .. }
            | Self::UnknownKind { .. }
            | Self::Incomplete(_) => None,
        }
    }

    /// Whether trying the same again later can succeed without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Conflict { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Config(_)
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Answer { .. }
            | Self::UnknownKind { .. }
            | Self::Incomplete(_) => false,
        }
    }
}

/// An error and its causes in one line; a cause that the line above it repeats is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
