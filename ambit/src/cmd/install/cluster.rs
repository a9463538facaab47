//! The cluster that installing, upgrading, removing and enrolling are about: which one it is, and the few calls that
//! these commands make beside those of `ambit_kube::write`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_kube::write::Target;
use ambit_kube::{Call, KubeError};
use anyhow::Context as _;
use clap::builder::OsStringValueParser;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde_json::Value;

use crate::out::{self, Failure};

/// Under which name fields are owned.
pub(crate) const MANAGER: &str = "ambit-install";
/// Where a pod has its service account.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Longest call.
const CALL_MAX: Duration = Duration::from_secs(20);

/// Which cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct At {
    /// Kubeconfig file; unset: ~/.kube/config, else the cluster of the pod we run in
    #[arg(
        long, env = "KUBECONFIG", value_name = "FILE", value_parser = OsStringValueParser::new(), global = true
    )]
    kubeconfig: Option<OsString>,
    /// Another context of the kubeconfig file than its current one
    #[arg(long, env = "AMBIT_CONTEXT", value_name = "NAME", global = true)]
    context: Option<String>,
    #[arg(long, hide = true, env = "HOME", value_parser = OsStringValueParser::new(), global = true)]
    home: Option<OsString>,
}

impl At {
    /// Whether somebody named a cluster.
    pub(crate) fn is_named(&self) -> bool {
        self.named().is_some() || self.context.is_some()
    }

    /// Whether there is a cluster to be had, named or not.
    pub(crate) fn is_known(&self) -> bool {
        self.is_named() || self.at_home().is_some() || Path::new(POD_TOKEN).exists()
    }

    /// The client.
    ///
    /// # Errors
    /// When no cluster is known.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let file = self.named().or_else(|| self.at_home());
        let client = ambit_kube::client::connect_to(file.as_deref(), self.context.as_deref()).await;
        client.map_err(|error| Failure::new(out::UNREACHABLE, error.to_string()).into())
    }

    /// The first file of the list that is there, as the variable may hold several; the first one if none is.
    fn named(&self) -> Option<PathBuf> {
        let list = self.kubeconfig.as_ref().filter(|list| !list.is_empty())?;
        let mut files = std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty());
        let first = files.next()?;
        if first.exists() {
            return Some(first);
        }
        Some(files.find(|file| file.exists()).unwrap_or(first))
    }

    fn at_home(&self) -> Option<PathBuf> {
        let file = PathBuf::from(self.home.as_ref()?).join(".kube/config");
        file.exists().then_some(file)
    }
}

/// What an apply would make of the object; nothing is changed. `None` if its kind or namespace is not there yet.
///
/// # Errors
/// When the API server refuses it, or does not answer.
pub(crate) async fn rehearse(client: &Client, object: &Value) -> anyhow::Result<Option<Value>> {
    let target = Target::of(object)?;
    let params = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match patch(client, &target, &params, &Patch::Apply(object)).await {
        Ok(made) => Ok(Some(made)),
        Err(KubeError::NotFound { .. }) => Ok(None),
        Err(other) => Err(other).with_context(|| format!("rehearsing {}", name_of(object))),
    }
}

/// Sets (a value) or removes (null) what `change` names of the object.
///
/// # Errors
/// When the API server refuses it, or does not answer.
pub(crate) async fn merge(client: &Client, target: &Target, change: &Value) -> Result<Value, KubeError> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    patch(client, target, &params, &Patch::Merge(change)).await
}

/// Merges a change into an object's status.
///
/// # Errors
/// As [`merge`]; [`KubeError::Conflict`] if the change names another version than the live one.
pub(crate) async fn merge_status(
    client: &Client,
    target: &Target,
    change: &Value,
) -> Result<Value, KubeError> {
    let Target { resource, namespace, name } = target;
    let call = Call::new("patch", resource, namespace.as_deref(), Some(name)).part("status");
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let request = Request::new(resource.path(namespace.as_deref()));
    let request = request.patch_subresource("status", name, &params, &Patch::Merge(change));
    send(client, call, request).await
}

async fn patch(
    client: &Client,
    target: &Target,
    params: &PatchParams,
    change: &Patch<&Value>,
) -> Result<Value, KubeError> {
    let Target { resource, namespace, name } = target;
    let call = Call::new("patch", resource, namespace.as_deref(), Some(name));
    let request = Request::new(resource.path(namespace.as_deref())).patch(name, params, change);
    send(client, call, request).await
}

async fn send<E: std::fmt::Display>(
    client: &Client,
    call: Call,
    request: Result<http::Request<Vec<u8>>, E>,
) -> Result<Value, KubeError> {
    let request = request
        .map_err(|cause| KubeError::Answer { call: Box::new(call.clone()), cause: cause.to_string() })?;
    match tokio::time::timeout(CALL_MAX, client.request(request)).await {
        Ok(answer) => answer.map_err(|error| KubeError::of(&call, error)),
        Err(_) => Err(KubeError::TimedOut { call: Box::new(call), after: CALL_MAX }),
    }
}

/// `Kind NAMESPACE/NAME` of an object.
pub(crate) fn name_of(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (kind, name) = (text("/kind").unwrap_or("object"), text("/metadata/name").unwrap_or("?"));
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
