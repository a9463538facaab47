//! The way to an API server: a kubeconfig file, or the service account of the pod we run in.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::KubeError;

/// Longest time until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Who we are in the API server's log.
const AGENT: &str = concat!("ambit/", env!("CARGO_PKG_VERSION"));

/// A client for the API server of a kubeconfig's current context, or for that of the cluster we run in.
///
/// Nothing is sent yet. Tokens and root certificates of a pod are read again when they change.
///
/// # Errors
/// [`KubeError::Config`] if the file, or the pod's service account, cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, KubeError> {
    connect_to(kubeconfig, None).await
}

/// The same for another context of the kubeconfig than the current one, if one is named.
///
/// # Errors
/// As [`connect`]; also if a context is named and no file.
pub async fn connect_to(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, KubeError> {
    let mut config = match (kubeconfig, context) {
        (Some(path), context) => from_file(path, context).await?,
        (None, Some(context)) => {
            return Err(KubeError::Config(format!(
                "the context {context} is of a kubeconfig, and there is none"
            )));
        }
        (None, None) => Config::incluster().map_err(|cause| KubeError::Config(cause.to_string()))?,
    };
    config.connect_timeout = Some(CONNECT_MAX);
    // Watches are open for minutes; every other request has a time limit where it is made.
    config.read_timeout = None;
    // Whoever calls tries again, and sooner: what the library adds doubles up to minutes while a server starts.
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    Client::try_from(config).map_err(|cause| KubeError::Config(cause.to_string()))
}

async fn from_file(path: &Path, context: Option<&str>) -> Result<Config, KubeError> {
    let wrong =
        |cause: kube::config::KubeconfigError| KubeError::Config(format!("{}: {cause}", path.display()));
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options).await.map_err(wrong)
}
