//! Where a lab keeps its files: everything below one directory that only its owner can enter.
//!
//! Names files; reads and writes none, except to make and remove the directory itself.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::name::{LabName, NameError};

/// The directory that holds one directory a lab.
pub const RUN_ROOT: &str = "/run/ambit";

/// How often the parent is made again if another lab's end removes it meanwhile.
const PARENT_ATTEMPTS: usize = 16;

/// The directory of one lab, `/run/ambit/NAME`, mode 0700.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The directory of the lab of that name, whether it exists or not.
    pub fn of(name: &LabName) -> Self {
        Self { root: Path::new(RUN_ROOT).join(name.as_str()) }
    }

    /// Names of every lab that has a directory, sorted.
    pub fn labs() -> Vec<LabName> {
        let entries = fs::read_dir(RUN_ROOT).into_iter().flatten().flatten();
        let mut labs: Vec<LabName> =
            entries.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok())).collect();
        labs.sort();
        labs
    }

    /// Makes the directory and what is fixed below it.
    ///
    /// # Errors
    /// The system's answer; `AlreadyExists` if a lab of that name has it.
    pub fn create(&self) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        self.create_root(&private)?;
        for below in [self.objects(), self.istiod(), self.nodes(), self.sandboxes(), self.logs(), self.pods()]
        {
            private.create(below)?;
        }
        Ok(())
    }

    /// Makes the directory in the shared parent, which another lab's end may remove at any moment between the two.
    fn create_root(&self, private: &fs::DirBuilder) -> io::Result<()> {
        let mut parents = fs::DirBuilder::new();
        parents.recursive(true).mode(0o755);
        for _ in 1..PARENT_ATTEMPTS {
            parents.create(RUN_ROOT)?;
            match private.create(&self.root) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        parents.create(RUN_ROOT)?;
        private.create(&self.root)
    }

    /// Removes the directory with everything below it; a missing one is no error.
    ///
    /// # Errors
    /// The system's answer.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }?;
        // The shared parent goes with the last lab; another lab's directory keeps it.
        let _ = fs::remove_dir(RUN_ROOT);
        Ok(())
    }

    /// The lab that it belongs to.
    ///
    /// # Errors
    /// If the directory's name is none of a lab.
    pub fn lab(&self) -> Result<LabName, NameError> {
        self.root.file_name().and_then(|name| name.to_str()).unwrap_or_default().parse()
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the lab was started with, as JSON.
    pub fn config(&self) -> PathBuf {
        self.root.join("lab.json")
    }

    /// Pid of the daemon that owns the lab.
    pub fn daemon_pid(&self) -> PathBuf {
        self.root.join("daemon.pid")
    }

    /// Where the daemon listens for commands.
    pub fn daemon_socket(&self) -> PathBuf {
        self.root.join("daemon.sock")
    }

    /// The object store: one Kubernetes object a file.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// State of the control plane.
    pub fn istiod(&self) -> PathBuf {
        self.root.join("istiod")
    }

    /// State of a replica of the control plane; of the first, [`Self::istiod`].
    pub fn istiod_replica(&self, replica: u16) -> PathBuf {
        if replica == 0 { self.istiod() } else { self.root.join(format!("istiod-{}", replica + 1)) }
    }

    /// How a replica of the control plane reaches the API server.
    pub fn istiod_kubeconfig(&self, replica: u16) -> PathBuf {
        self.istiod_replica(replica).join("kubeconfig")
    }

    /// How the node agent of a node reaches the API server.
    pub fn cni_kubeconfig(&self, node: &str) -> PathBuf {
        self.node(node).join("cni.kubeconfig")
    }

    /// Everything of the API server, its store and its controllers.
    pub fn kube(&self) -> PathBuf {
        self.root.join("kube")
    }

    /// The administrator's way to the API server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kube().join("admin.kubeconfig")
    }

    /// The mesh's trust bundle as the API server holds it.
    pub fn root_bundle(&self) -> PathBuf {
        self.kube().join("root-cert.pem")
    }

    /// Log of what starts the API server's parts.
    pub fn kube_log(&self) -> PathBuf {
        self.logs().join("kube.log")
    }

    /// One directory a node.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// Sockets and token of one node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    /// Links from a pod's uid to its network namespace.
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// The files that are bound over a pod's own, a directory a pod.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// One file a program or pod.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Log of the daemon.
    pub fn daemon_log(&self) -> PathBuf {
        self.logs().join("daemon.log")
    }

    /// Log of a pod: output of all its containers.
    pub fn pod_log(&self, namespace: &str, pod: &str) -> PathBuf {
        self.logs().join(format!("pod-{namespace}-{pod}.log"))
    }
}
