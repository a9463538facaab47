//! The API server as the leader uses it: a handful of verbs on named resources, paced.
//!
//! Calls, and the errors that name the rule of RBAC that is missing, are those of [`ambit_kube::write`]; here they are
//! sorted by what a reconciler does about them.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_kube::write::{self, CALL_MAX, Target};
use ambit_kube::{Call, KubeError, resource};
use ambit_runtime::clock;
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// Under which name fields are owned.
pub(super) const MANAGER: &str = "ambit-istiod";
/// Objects of one page of a list.
const PAGE: usize = 500;
/// Most pages of one list: beyond it something is wrong with the server.
const PAGES_MAX: usize = 2_000;
/// Calls a second in the long run, and at once.
const CALLS_PER_SECOND: f64 = 50.0;
const CALLS_BURST: f64 = 100.0;

/// A resource of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource {
    /// Such as `apps/v1`.
    pub(super) version: &'static str,
    /// Such as `Deployment`.
    pub(super) kind: &'static str,
    /// Such as `deployments`.
    pub(super) plural: &'static str,
    /// Whether its objects are in namespaces.
    pub(super) namespaced: bool,
}

impl Resource {
    pub(super) const DEPLOYMENT: Self = Self::namespaced("apps/v1", "Deployment", "deployments");
    pub(super) const SERVICE: Self = Self::namespaced("v1", "Service", "services");
    pub(super) const ACCOUNT: Self = Self::namespaced("v1", "ServiceAccount", "serviceaccounts");
    pub(super) const BUDGET: Self =
        Self::namespaced("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets");
    pub(super) const SCALER: Self =
        Self::namespaced("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    pub(super) const CONFIG_MAP: Self = Self::namespaced("v1", "ConfigMap", "configmaps");
    pub(super) const EVENT: Self = Self::namespaced("events.k8s.io/v1", "Event", "events");
    pub(super) const GATEWAY: Self = Self::namespaced("gateway.networking.k8s.io/v1", "Gateway", "gateways");
    pub(super) const GATEWAY_CLASS: Self =
        Self::global("gateway.networking.k8s.io/v1", "GatewayClass", "gatewayclasses");
    pub(super) const TRUST_BUNDLE: Self =
        Self::global("certificates.k8s.io/v1beta1", "ClusterTrustBundle", "clustertrustbundles");

    const fn namespaced(version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { version, kind, plural, namespaced: true }
    }

    const fn global(version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { version, kind, plural, namespaced: false }
    }

    fn known(self) -> resource::Resource {
        resource::Resource {
            group: self.version.split_once('/').map_or("", |(group, _)| group).to_owned(),
            api_version: self.version.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
            namespaced: self.namespaced,
        }
    }
}

/// Where an object is.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) resource: Resource,
    /// Empty for objects of the whole cluster.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl At<'_> {
    fn target(&self) -> Target {
        let namespace = Some(self.namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        Target { resource: self.resource.known(), namespace, name: self.name.to_owned() }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            "" => write!(f, "{} {}", self.resource.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.resource.kind, self.name),
        }
    }
}

/// Why a call was in vain.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Such an object cannot be: somebody has to install its kind.
    #[error("the API server does not serve {kind} of {version}")]
    NotServed { version: &'static str, kind: &'static str },
    /// It went away while it was looked at.
    #[error("it is not there")]
    Gone,
    /// Nothing can be made in a namespace that is being removed.
    #[error("its namespace is about to end")]
    Ending,
    /// Somebody was first.
    #[error("there is one of this name already")]
    Exists,
    /// Anything else.
    #[error(transparent)]
    Kube(KubeError),
}

impl ApiError {
    /// Whether trying the same again soon is in vain. A missing rule may be granted any time.
    pub(super) fn is_hopeless(&self) -> bool {
        match self {
            Self::NotServed { .. } | Self::Exists | Self::Gone | Self::Ending => true,
            Self::Kube(KubeError::Forbidden { .. } | KubeError::Unauthorized { .. }) => false,
            Self::Kube(error) => !error.is_passing(),
        }
    }

    /// What an error means of an object that may not be there yet.
    fn of(error: KubeError, resource: Resource) -> Self {
        match error {
            KubeError::Forbidden { message, .. } if message.contains("it is being terminated") => {
                Self::Ending
            }
            KubeError::NotFound { message, .. } if message.starts_with("namespaces ") => Self::Ending,
            KubeError::NotFound { .. } => Self::NotServed { version: resource.version, kind: resource.kind },
            other => Self::Kube(other),
        }
    }

    /// The same of an object that is there.
    fn of_present(error: KubeError, resource: Resource) -> Self {
        match Self::of(error, resource) {
            Self::NotServed { .. } => Self::Gone,
            other => other,
        }
    }
}

/// How many calls may be made.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one; returns how long to wait before it may be used.
    fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * CALLS_PER_SECOND).min(CALLS_BURST) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens / CALLS_PER_SECOND).max(0.0))
    }
}

/// The API server.
pub(super) struct Server {
    client: Client,
    bucket: Mutex<Bucket>,
}

impl Server {
    pub(super) fn new(client: Client) -> Self {
        let bucket = Bucket { tokens: CALLS_BURST, at: clock::monotonic() };
        Self { client, bucket: Mutex::new(bucket) }
    }

    /// The object, if it is there.
    pub(super) async fn get(&self, at: At<'_>) -> Result<Option<Value>, ApiError> {
        self.turn().await;
        write::get(&self.client, &at.target()).await.map_err(|error| ApiError::of(error, at.resource))
    }

    /// Hands every object to `sink`, page by page, so that no more than a page is held. `query` narrows them, such as
    /// `labelSelector=a%3Db`.
    pub(super) async fn list(
        &self,
        resource: Resource,
        query: &str,
        mut sink: impl FnMut(&Value),
    ) -> Result<(), ApiError> {
        let path = resource.known().path(None);
        let call = Call::new("list", &resource.known(), None, None);
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            self.turn().await;
            let rest = if next.is_empty() { String::new() } else { format!("&continue={next}") };
            let page = self.page(&call, &format!("{path}?limit={PAGE}&{query}{rest}")).await;
            let page = page.map_err(|error| ApiError::of(error, resource))?;
            page.get("items").and_then(Value::as_array).into_iter().flatten().for_each(&mut sink);
            next = encoded(page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default());
            if next.is_empty() {
                return Ok(());
            }
        }
        let cause = format!("the list has no end after {PAGES_MAX} pages");
        Err(ApiError::Kube(KubeError::Answer { call: Box::new(call), cause }))
    }

    async fn page(&self, call: &Call, address: &str) -> Result<Value, KubeError> {
        let request = Request::get(address).body(Vec::new());
        let request = request.map_err(|error| KubeError::of(call, kube::Error::HttpError(error)))?;
        match tokio::time::timeout(CALL_MAX, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| KubeError::of(call, error)),
            Err(_) => Err(KubeError::TimedOut { call: Box::new(call.clone()), after: CALL_MAX }),
        }
    }

    /// Writes what `body` says by server-side apply, over whoever wrote the same before.
    pub(super) async fn apply(&self, at: At<'_>, body: &Value) -> Result<Value, ApiError> {
        self.turn().await;
        let written = write::apply(&self.client, MANAGER, body, true).await;
        written.map_err(|error| ApiError::of(error, at.resource))
    }

    /// The same of the status; `status` is what is ours of it. Whoever changed the object since the version that is
    /// given makes this a conflict.
    pub(super) async fn apply_status(
        &self,
        at: At<'_>,
        status: &Value,
        version: Option<&str>,
    ) -> Result<Value, ApiError> {
        let mut body = json!({
            "apiVersion": at.resource.version, "kind": at.resource.kind,
            "metadata": {"name": at.name}, "status": status,
        });
        if !at.namespace.is_empty() {
            body["metadata"]["namespace"] = json!(at.namespace);
        }
        if let Some(version) = version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        self.turn().await;
        let written = write::apply_status(&self.client, MANAGER, &body, true).await;
        written.map_err(|error| ApiError::of_present(error, at.resource))
    }

    /// Makes an object that is not there.
    pub(super) async fn create(&self, at: At<'_>, body: &Value) -> Result<Value, ApiError> {
        self.turn().await;
        write::create(&self.client, MANAGER, body).await.map_err(|error| match error {
            KubeError::Conflict { .. } => ApiError::Exists,
            other => ApiError::of(other, at.resource),
        })
    }

    /// Removes an object, if it is the one with this uid and still there.
    pub(super) async fn delete(&self, at: At<'_>, uid: &str) -> Result<(), ApiError> {
        self.turn().await;
        match write::delete(&self.client, &at.target(), Some(uid)).await {
            // Another has taken its name.
            Ok(_) | Err(KubeError::Conflict { .. }) => Ok(()),
            Err(error) => Err(ApiError::of(error, at.resource)),
        }
    }

    /// Waits until a call may be made.
    async fn turn(&self) {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(clock::monotonic())
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A text as a query can hold it.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
