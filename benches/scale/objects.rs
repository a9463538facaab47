//! Where the control plane reads objects, and who gives proxies their tokens: a folder or an API server.

use std::path::Path;

use ambit_benches::Source;

use crate::folder::Folder;
use crate::kube::Kube;
use crate::layout::{Layout, Name};

/// A place for objects.
pub(crate) enum Objects {
    /// A folder of manifests.
    Folder(Folder),
    /// An API server.
    Kube(Kube),
}

impl Objects {
    /// Makes one below `home`, with nothing but namespaces in it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) async fn open(
        source: Source,
        home: &Path,
        layout: &Layout,
        kube: &Path,
    ) -> anyhow::Result<Self> {
        Ok(match source {
            Source::Folder => Self::Folder(Folder::make(home, layout)?),
            Source::Kube => Self::Kube(Kube::start(kube, home, layout).await?),
        })
    }

    /// Writes everything.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(crate) async fn fill(&mut self, layout: &Layout) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.fill(layout),
            Self::Kube(kube) => kube.fill(layout).await,
        }
    }

    /// Arguments of the control plane that name it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => folder.arguments(),
            Self::Kube(kube) => kube.arguments(),
        }
    }

    /// Tokens of the proxies of the first `count` nodes.
    ///
    /// # Errors
    /// If one cannot be had.
    pub(crate) async fn tokens(&self, count: usize) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Folder(folder) => (0..count).map(|node| folder.token(node)).collect(),
            Self::Kube(kube) => kube.tokens(count).await,
        }
    }

    /// Turns readiness of the pod in a place; the revision that contains it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn flip(&mut self, layout: &mut Layout, place: usize) -> anyhow::Result<u64> {
        layout.flip(place);
        match self {
            Self::Folder(folder) => folder.put(&layout.pod_object(place)),
            Self::Kube(kube) => kube.set_status(layout, place).await,
        }
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(crate) async fn remove(&mut self, pod: &Name) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(pod),
            Self::Kube(kube) => kube.remove(pod).await,
        }
    }

    /// Makes the pod in a place.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn create(&mut self, layout: &Layout, place: usize) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.put(&layout.pod_object(place)).map(drop),
            Self::Kube(kube) => kube.make_pod(layout, place).await,
        }
    }
}
