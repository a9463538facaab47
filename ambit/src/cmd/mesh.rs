//! Which mesh a command is about that shows what was seen: a lab, whose nodes are asked one by one, or a cluster, whose
//! control plane is.

use std::path::PathBuf;

use ambit_lab::LabName;

use super::cluster::Cluster;
use super::install::cluster::At;
use super::nodes::Where;
use super::place;

/// Which mesh, and what of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Mesh {
    #[arg(long, env = "AMBIT_LAB", global = true, help = place::LAB)]
    name: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
    /// Namespace of a cluster's control plane
    #[arg(
        long,
        env = "AMBIT_ROOT_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "istio-system",
        global = true
    )]
    root_namespace: String,
    /// File with the token of a cluster's console; unset: that in the Secret ambit-console
    #[arg(long, env = "AMBIT_CONSOLE_TOKEN_FILE", value_name = "FILE", global = true)]
    console_token_file: Option<PathBuf>,
    /// Only this node
    #[arg(long, global = true)]
    pub(crate) node: Option<String>,
}

impl Mesh {
    /// The lab that it is about; none if it is about a cluster.
    pub(crate) fn lab(&self) -> Option<&LabName> {
        place::lab(self.name.as_ref(), &self.usual, &self.at)
    }

    /// The same with its node, as who asks the nodes takes it.
    pub(crate) fn here(&self) -> Option<Where> {
        self.lab().map(|lab| Where { name: lab.clone(), node: self.node.clone() })
    }

    /// The cluster that it is about.
    ///
    /// # Errors
    /// When no cluster is known, or there is no token for its console, with what to type.
    pub(crate) async fn cluster(&self) -> anyhow::Result<Cluster> {
        let client = self.at.connect().await?;
        Cluster::of(client, &self.root_namespace, self.console_token_file.as_deref()).await
    }

    /// Only the way to the cluster's API server, for objects alone.
    ///
    /// # Errors
    /// When no cluster is known.
    pub(crate) async fn client(&self) -> anyhow::Result<kube::Client> {
        self.at.connect().await
    }

    /// The namespace of a cluster's control plane.
    pub(crate) fn root_namespace(&self) -> &str {
        &self.root_namespace
    }
}
