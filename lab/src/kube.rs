//! A real Kubernetes API server as the place where a lab's objects live.
//!
//! etcd, kube-apiserver and kube-controller-manager run as processes in the fabric; the lab plays the rest of a
//! cluster: scheduler, kubelets, kube-proxy, cluster DNS. What the lab writes goes through a mirror of the served
//! objects, so that everything above it works the same over a folder and over an API server.

pub mod api;
pub mod binary;
pub mod cluster;
mod connect;
pub mod delta;
pub mod deploy;
pub mod front;
pub mod images;
pub mod kubectl;
pub mod members;
mod mirror;
pub mod node;
pub mod request;
pub mod settings;
pub mod settle;
pub mod spec;
pub mod sync;
pub mod tokens;
mod watching;
mod writer;

pub use api::{Api, Refusal};
pub use cluster::Cluster;
pub use kubectl::Kubectl;
pub use mirror::Mirror;
pub use settings::{KubeSettings, Source};
pub use spec::KubePart;
pub(crate) use watching::begin as follow;

/// Namespace of the mesh's own accounts, pods and services.
pub const NAMESPACE: &str = "istio-system";
/// Under which name the lab's writes are kept in `managedFields`.
pub const MANAGER: &str = "ambit-lab";
