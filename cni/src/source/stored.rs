//! The last known pods and namespaces in a file, for a restart while the API server is away.
//!
//! The file lies where a reboot clears it, and only root may write there. What it says is held against the node all the
//! same: a pod's namespace is proven like any other time before anything is done in it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::attend::Namespaces;
use crate::pod::Pod;
use crate::reconcile::Pods;

#[cfg(test)]
mod tests;

/// Version of the file; another one is not read.
const VERSION: u32 = 1;
/// Longest file that is read: a few hundred pods and many thousand namespaces.
const FILE_MAX: u64 = 64 << 20;

/// The contents of the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    version: u32,
    node: String,
    /// The pods of the node.
    pub pods: Vec<Pod>,
    namespaces: Namespaces,
}

impl Stored {
    pub(super) fn new(node: &str, pods: &Pods, namespaces: &Namespaces) -> Self {
        let pods = pods.values().cloned().collect();
        Self { version: VERSION, node: node.to_owned(), pods, namespaces: namespaces.clone() }
    }

    /// What is stored for `node`; `None` if nothing is, or for another node.
    pub(super) fn load(path: &Path, node: &str) -> Result<Option<Self>, String> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|e| e.to_string())?,
        };
        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text).map_err(|e| e.to_string())?;
        let stored: Self = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        Ok((stored.version == VERSION && stored.node == node).then_some(stored))
    }

    /// Replaces the file as a whole.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let temporary = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.flush()?;
        drop(file);
        fs::rename(&temporary, path)
    }

    pub(super) fn into_parts(self) -> (Pods, Namespaces) {
        (self.pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect(), self.namespaces)
    }
}
