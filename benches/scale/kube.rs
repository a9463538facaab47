//! Objects on a real API server, which is started for the benchmark: etcd, API server and controllers in one program.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ambit_kube::{Call, KubeError};
use ambit_runtime::clock;
use anyhow::{Context as _, bail};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::folder::AUDIENCE;
use crate::layout::{self, Layout, Name};
use crate::process::Process;

/// How long the API server may take to serve.
const SERVES_MAX: Duration = Duration::from_secs(120);
/// How long the controllers may take to list every service's endpoints.
const SLICES_MAX: Duration = Duration::from_secs(900);
/// Pause between two looks at either.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Requests at once.
const AT_ONCE: usize = 32;
/// How long one request may take, and how often it is made until it is of use, with a pause between.
const REQUEST_MAX: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 40;
/// Life of a token in seconds.
const TOKEN_SECONDS: u64 = 3600;

type Send =
    dyn Fn(Request<Vec<u8>>, Call) -> BoxFuture<'static, Result<Value, KubeError>> + std::marker::Send + Sync;

/// An API server that serves; ended when dropped.
pub(crate) struct Kube {
    // Held to its end.
    _process: Process,
    kubeconfig: PathBuf,
    api: Api,
}

/// The way to it, as its administrator.
#[derive(Clone)]
struct Api(Arc<Send>);

impl Kube {
    /// Starts it below `home`, with namespaces and accounts.
    ///
    /// # Errors
    /// If it does not serve in time, or refuses them.
    pub(crate) async fn start(program: &Path, home: &Path, layout: &Layout) -> anyhow::Result<Self> {
        if !program.is_file() {
            bail!("{} is not there; it comes with: xtask/need.sh test", program.display());
        }
        let args = [
            "up".to_owned(),
            format!("--dir={}", home.join("kube").display()),
            format!("--timeout={}s", SERVES_MAX.as_secs()),
            // So that listing endpoints does not take longer than everything else.
            "--controller-manager-arg=--kube-api-qps=1000".to_owned(),
            "--controller-manager-arg=--kube-api-burst=2000".to_owned(),
        ];
        let mut process = Process::start(program, &args, home)?;
        let kubeconfig = started(&mut process, &home.join("ambit-kube.out")).await?;
        let api = Api::connect(&kubeconfig).await?;
        let kube = Self { _process: process, kubeconfig, api };
        kube.create_all("/api/v1/namespaces", layout.namespaces()).await?;
        let accounts = layout.accounts().into_iter();
        kube.each(accounts, |api, account| async move {
            let path = format!("/api/v1/namespaces/{}/serviceaccounts", namespace_of(&account));
            api.create(&path, &account).await
        })
        .await?;
        Ok(kube)
    }

    /// Writes everything else. Pods come before services: so endpoints are listed once each.
    ///
    /// # Errors
    /// If something is refused.
    pub(crate) async fn fill(&self, layout: &Layout) -> anyhow::Result<()> {
        self.create_all("/api/v1/nodes", layout.node_objects()).await?;
        let pods = (0..layout.places()).map(|place| layout.pod_object(place));
        self.each(layout.proxy_objects().chain(pods), |api, pod| async move { api.make_pod(&pod).await })
            .await?;
        self.each(layout.service_objects(|_| None), |api, service| async move {
            let path = format!("/api/v1/namespaces/{}/services", namespace_of(&service));
            api.create(&path, &service).await
        })
        .await?;
        self.until_listed(layout.services()).await
    }

    /// Arguments of the control plane.
    pub(crate) fn arguments(&self) -> Vec<String> {
        vec![
            "--source=kube".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            "--webhook-listen=127.0.0.1:0".to_owned(),
        ]
    }

    /// Tokens of the proxies of the first nodes, each bound to its pod.
    ///
    /// # Errors
    /// If one is refused.
    pub(crate) async fn tokens(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let (namespace, account) = (layout::SYSTEM, layout::PROXY);
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let requests = (0..count).map(|node| {
            let (api, path) = (self.api.clone(), path.clone());
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": layout::proxy(node)});
            let body = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {
                    "audiences": [AUDIENCE], "boundObjectRef": pod, "expirationSeconds": TOKEN_SECONDS,
                },
            });
            async move {
                let answer = api.send(Method::POST, &path, JSON, &body).await?;
                let token = answer.pointer("/status/token").and_then(Value::as_str).map(str::to_owned);
                token.with_context(|| format!("the answer to {path} holds no token"))
            }
        });
        // In the order of their nodes.
        stream::iter(requests).buffered(AT_ONCE).try_collect().await
    }

    /// Sets the status of the pod in a place to what it is now; the version that contains it.
    ///
    /// # Errors
    /// If it is refused.
    pub(crate) async fn set_status(&self, layout: &Layout, place: usize) -> anyhow::Result<u64> {
        let pod = layout.pod_object(place);
        let answer = self.api.patch_status(&pod).await?;
        let version = answer.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let version = version.context("the answer holds no version")?;
        version.parse().with_context(|| format!("the version {version:?} is no number"))
    }

    /// Removes a pod at once.
    ///
    /// # Errors
    /// If it is refused.
    pub(crate) async fn remove(&self, pod: &Name) -> anyhow::Result<()> {
        let path = pod_path(pod.namespace.as_deref().unwrap_or_default(), &pod.name);
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.api.send(Method::DELETE, &path, JSON, &options).await.map(drop)
    }

    /// Makes the pod in a place, and its status.
    ///
    /// # Errors
    /// If it is refused.
    pub(crate) async fn make_pod(&self, layout: &Layout, place: usize) -> anyhow::Result<()> {
        self.api.make_pod(&layout.pod_object(place)).await
    }

    async fn create_all(&self, path: &str, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        self.each(objects.into_iter(), |api, object| {
            let path = path.to_owned();
            async move { api.create(&path, &object).await }
        })
        .await
    }

    /// Does something with each object, some at once.
    async fn each<F: Future<Output = anyhow::Result<()>>>(
        &self,
        objects: impl Iterator<Item = Value>,
        act: impl Fn(Api, Value) -> F,
    ) -> anyhow::Result<()> {
        let acts = objects.map(|object| act(self.api.clone(), object));
        stream::iter(acts).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Waits until there is a list of endpoints for every service.
    async fn until_listed(&self, services: usize) -> anyhow::Result<()> {
        let end = clock::monotonic() + SLICES_MAX;
        loop {
            let path = "/apis/discovery.k8s.io/v1/endpointslices?limit=1";
            let list = self.api.send(Method::GET, path, JSON, &Value::Null).await?;
            let first = list["items"].as_array().map_or(0, Vec::len);
            let more = list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or(0);
            let there = first + usize::try_from(more)?;
            if there >= services {
                return Ok(());
            }
            if clock::monotonic() > end {
                bail!("the controllers have listed endpoints of {there} services of {services}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits for the line that says where it serves; the administrator's kubeconfig.
async fn started(process: &mut Process, output: &Path) -> anyhow::Result<PathBuf> {
    let end = clock::monotonic() + SERVES_MAX;
    loop {
        process.check()?;
        let text = fs::read_to_string(output).with_context(|| format!("reading {}", output.display()))?;
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut lines = whole.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(path) = lines.find_map(|line| line["kubeconfig"].as_str().map(PathBuf::from)) {
            return Ok(path);
        }
        if clock::monotonic() > end {
            bail!("the API server does not serve: {}", process.last_words());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

impl Api {
    async fn connect(kubeconfig: &Path) -> anyhow::Result<Self> {
        let client = ambit_kube::client::connect(Some(kubeconfig)).await?;
        Ok(Self(Arc::new(move |request, call: Call| {
            let client = client.clone();
            async move { client.request::<Value>(request).await.map_err(|cause| KubeError::of(&call, cause)) }
                .boxed()
        })))
    }

    /// Makes a pod, and then its status, which nobody but us will report.
    async fn make_pod(&self, pod: &Value) -> anyhow::Result<()> {
        self.create(&format!("/api/v1/namespaces/{}/pods", namespace_of(pod)), pod).await?;
        self.patch_status(pod).await.map(drop)
    }

    async fn patch_status(&self, pod: &Value) -> anyhow::Result<Value> {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let path = format!("{}/status", pod_path(namespace_of(pod), name));
        self.send(Method::PATCH, &path, MERGE, &json!({"status": pod["status"]})).await
    }

    /// Makes an object; one that is there already was made by an attempt whose answer was lost.
    async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        self.send(Method::POST, path, JSON, object).await.map(drop)
    }

    /// Sends a request, again while that can help: the server is busy, or does not know an account yet.
    async fn send(&self, method: Method, path: &str, content: &str, body: &Value) -> anyhow::Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = Request::builder().method(method.clone()).uri(path).header("content-type", content);
            let call = Call {
                verb: "request",
                group: String::new(),
                resource: path.to_owned(),
                namespace: None,
                name: None,
            };
            let request = request.body(bytes.clone())?;
            let answer = tokio::time::timeout(REQUEST_MAX, (self.0)(request, call)).await;
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(KubeError::Conflict { .. })) if method == Method::POST => return Ok(Value::Null),
                Ok(Err(cause)) if !is_worth_another(&cause) || attempt >= ATTEMPTS => {
                    return Err(cause.into());
                }
                Err(_) if attempt >= ATTEMPTS => bail!("{path}: no answer"),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}

fn is_worth_another(cause: &KubeError) -> bool {
    cause.is_passing() || matches!(cause, KubeError::Forbidden { .. })
}

fn namespace_of(object: &Value) -> &str {
    object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default()
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}
