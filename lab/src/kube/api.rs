//! Requests to the API server, as plain JSON: what was answered, or one of four reasons why not.

use std::time::Duration;

use ambit_manifest::ObjectKey;
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::error::LabError;

use super::MANAGER;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such object, or no such kind.
    Absent(String),
    /// The object is another one, or was changed meanwhile.
    Conflict(String),
    /// The server will not do it; asking again is of no use.
    Refused {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The server was not reached, or is too busy; later it may do it.
    Away(String),
}

impl Refusal {
    fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::Absent(status.message.clone()),
                409 => Self::Conflict(status.message.clone()),
                429 | 500..=599 => Self::Away(status.message.clone()),
                code => Self::Refused { code, message: status.message.clone() },
            },
            other => Self::Away(full(&other)),
        }
    }

    /// The words for a person.
    pub fn message(&self) -> String {
        match self {
            Self::Absent(message) | Self::Conflict(message) | Self::Refused { message, .. } => {
                message.clone()
            }
            Self::Away(why) => format!("the API server does not answer: {why}"),
        }
    }
}

impl From<Refusal> for LabError {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.message())
    }
}

/// An error with everything that caused it.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// JSON merge patch: maps by key, null removes.
    Merge,
    /// Strategic merge patch, which built-in kinds know: lists by their keys too.
    Strategic,
    /// Server-side apply; what is said counts, whoever said something else before.
    Apply,
}

/// The API server.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api { .. }")
    }
}

impl Api {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client, for whoever watches.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether the server says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let request = Request::get("/readyz").body(Vec::new());
        let Ok(request) = request else { return false };
        let answer = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        matches!(answer, Ok(Ok(_)))
    }

    /// An object.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.send(Method::GET, path, "application/json", None).await
    }

    /// Makes an object, or asks something of a subresource.
    ///
    /// # Errors
    /// Why not.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.send(Method::POST, path, "application/json", Some(body)).await
    }

    /// Makes an object unless there is one of its name already.
    ///
    /// # Errors
    /// Why not.
    pub async fn post_once(&self, path: &str, body: &Value) -> Result<(), Refusal> {
        match self.post(path, body).await {
            Ok(_) | Err(Refusal::Conflict(_)) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Changes an object.
    ///
    /// # Errors
    /// Why not.
    pub async fn patch(&self, path: &str, how: Patch, body: &Value) -> Result<Value, Refusal> {
        let (kind, query) = match how {
            Patch::Merge => ("application/merge-patch+json", format!("?fieldManager={MANAGER}")),
            Patch::Strategic => {
                ("application/strategic-merge-patch+json", format!("?fieldManager={MANAGER}"))
            }
            Patch::Apply => ("application/apply-patch+yaml", format!("?fieldManager={MANAGER}&force=true")),
        };
        self.send(Method::PATCH, &format!("{path}{query}"), kind, Some(body)).await
    }

    /// Deletes an object; what is answered is its last state, or only that it is gone.
    ///
    /// # Errors
    /// Why not.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Refusal> {
        self.send(Method::DELETE, path, "application/json", Some(options)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let unfit = |e: &dyn std::fmt::Display| Refusal::Refused { code: 400, message: e.to_string() };
        let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| unfit(&e))?.unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let request = request.body(bytes).map_err(|e| unfit(&e))?;
        match tokio::time::timeout(PATIENCE, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(Refusal::of),
            Err(_) => Err(Refusal::Away(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// The path of an object, or of all of its kind in its namespace if the name is empty.
pub fn path_of(key: &ObjectKey) -> String {
    // Every kind has one version at least.
    let version = key.kind.api_versions().first().copied().unwrap_or("v1");
    path(version, key.kind.plural(), key.namespace.as_deref(), &key.name)
}

/// The path of an object of any kind.
pub fn path(version: &str, plural: &str, namespace: Option<&str>, name: &str) -> String {
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let namespace = namespace.map(|n| format!("/namespaces/{n}")).unwrap_or_default();
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{root}{namespace}/{plural}{name}")
}

/// Options of a deletion: only of the object with that uid, if one is given; at once, if it is asked.
pub fn deletion(uid: &str, at_once: bool) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if !uid.is_empty() {
        options["preconditions"] = json!({"uid": uid});
    }
    if at_once {
        options["gracePeriodSeconds"] = json!(0);
    }
    options
}

#[cfg(test)]
mod tests {
    use ambit_manifest::Kind;

    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let rows = [
            (ObjectKey::new(Kind::Pod, Some("shop"), "cart"), "/api/v1/namespaces/shop/pods/cart"),
            (ObjectKey::new(Kind::Namespace, None, "shop"), "/api/v1/namespaces/shop"),
            (
                ObjectKey::new(Kind::Deployment, Some("shop"), "web"),
                "/apis/apps/v1/namespaces/shop/deployments/web",
            ),
            (ObjectKey::new(Kind::Pod, Some("shop"), ""), "/api/v1/namespaces/shop/pods"),
        ];
        for (key, want) in rows {
            assert_eq!(path_of(&key), want, "row {key}");
        }
    }
}
