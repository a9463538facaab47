//! Asking an API server: plain GETs, and reviews of who may do what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_kube::client::connect_to;
use anyhow::Context as _;
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(15);
/// Most objects of one list; what is beyond is not looked at, and said.
const LIST_MAX: usize = 5000;

/// A cluster, and where the mesh is in it.
pub(super) struct Cluster {
    client: Client,
    /// Namespace of the control plane.
    pub(super) namespace: String,
}

/// What the API server says about a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The object or list.
    Found(Value),
    /// There is none, or its kind is not served.
    Missing,
    /// Why it cannot be told.
    Unknown(String),
}

impl Answer {
    /// The object, if it was found.
    pub(super) fn found(&self) -> Option<&Value> {
        match self {
            Self::Found(value) => Some(value),
            Self::Missing | Self::Unknown(_) => None,
        }
    }

    /// The objects of a list; none if there is no list.
    pub(super) fn items(&self) -> &[Value] {
        let items = self.found().and_then(|list| list["items"].as_array());
        items.map_or(&[], Vec::as_slice)
    }
}

impl Cluster {
    /// Opens a cluster by a kubeconfig file, the usual one, or the service account of the pod we run in.
    pub(super) async fn open(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        namespace: &str,
    ) -> anyhow::Result<Self> {
        let usual = || {
            let path = std::env::home_dir()?.join(".kube/config");
            path.is_file().then_some(path)
        };
        // The variable may hold several files; the first that is there counts.
        let given = kubeconfig.map(|all| {
            let files: Vec<PathBuf> = std::env::split_paths(all).collect();
            files.iter().find(|file| file.is_file()).or_else(|| files.first()).cloned().unwrap_or_default()
        });
        let file = given.or_else(usual);
        let client = connect_to(file.as_deref(), context)
            .await
            .context("finding the cluster; give --kubeconfig FILE, or set KUBECONFIG, as for kubectl")?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    /// What is at a path, such as `/api/v1/nodes`.
    pub(super) async fn get(&self, path: &str) -> Answer {
        match Request::get(path).body(Vec::new()) {
            Ok(request) => self.ask(request).await,
            Err(cause) => Answer::Unknown(cause.to_string()),
        }
    }

    /// A list, cut where it is too long.
    pub(super) async fn list(&self, path: &str) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{joint}limit={LIST_MAX}")).await
    }

    /// Whether somebody may do something: a service account, or whoever asks.
    pub(super) async fn may(&self, account: Option<&str>, attributes: Value) -> Result<bool, String> {
        let (path, spec) = match account {
            Some(name) => {
                let namespace = &self.namespace;
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ];
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let spec = json!({ "user": user, "groups": groups, "resourceAttributes": attributes });
                ("subjectaccessreviews", spec)
            }
            None => ("selfsubjectaccessreviews", json!({ "resourceAttributes": attributes })),
        };
        let body = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind(path), "spec": spec });
        let request = Request::post(format!("/apis/authorization.k8s.io/v1/{path}"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|cause| cause.to_string())?;
        match self.ask(request).await {
            Answer::Found(review) => Ok(review["status"]["allowed"] == true),
            Answer::Missing => Err("the API server reviews no access".to_owned()),
            Answer::Unknown(cause) => Err(cause),
        }
    }

    async fn ask(&self, request: Request<Vec<u8>>) -> Answer {
        match time::timeout(ANSWER, self.client.request::<Value>(request)).await {
            Ok(Ok(value)) => Answer::Found(value),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Answer::Missing,
            Ok(Err(kube::Error::Api(status))) => Answer::Unknown(status.message.clone()),
            Ok(Err(cause)) => Answer::Unknown(cause.to_string()),
            Err(_) => Answer::Unknown(format!("no answer within {} s", ANSWER.as_secs())),
        }
    }
}

fn kind(path: &str) -> &'static str {
    if path == "subjectaccessreviews" { "SubjectAccessReview" } else { "SelfSubjectAccessReview" }
}
