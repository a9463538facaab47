//! Where a lab's objects live, and what this machine lacks for it.
//!
//! The tests of the mesh run over a folder. With `AMBIT_LAB_SOURCE=kube` the same tests run over a real API server, and
//! every `ambit lab apply`, `delete`, `label` and `annotate` is carried out by `kubectl`: level `kube` of `make test`.

use std::path::{Path, PathBuf};

use super::binaries;

/// Says where the labs of [`super::Lab::up`] keep their objects: `folder`, the default, or `kube`.
const ENVIRONMENT: &str = "AMBIT_LAB_SOURCE";

/// Tools that the tests use beside the project's own programs.
const TOOLS: [&str; 9] =
    ["nft", "ip", "tcpdump", "curl", "nginx", "redis-server", "mariadbd", "iperf3", "nc"];

/// Where a lab's objects live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In a folder.
    Folder,
    /// In an API server, changed by the lab's own requests.
    Kube,
    /// In an API server, changed by `kubectl`.
    Kubectl,
}

impl Source {
    /// What the environment says.
    ///
    /// # Panics
    /// If it says something else than `folder` or `kube`.
    #[track_caller]
    pub(super) fn chosen() -> Self {
        let named = std::env::var_os(ENVIRONMENT).unwrap_or_default();
        match named.to_string_lossy().as_ref() {
            "" | "folder" => Self::Folder,
            "kube" => Self::Kubectl,
            other => panic!("{ENVIRONMENT}={other} is neither folder nor kube"),
        }
    }

    /// What this machine lacks for it; none if it can.
    pub(super) fn lacking(self) -> Option<String> {
        match self {
            Self::Folder => None,
            Self::Kube | Self::Kubectl => lacking_kube(),
        }
    }

    /// What `ambit lab up` is told.
    pub(super) fn arguments(self) -> Vec<String> {
        // The programs may stand in a target folder anywhere, which has no manifests above it.
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let served =
            ["--source", "kube", "--set", &format!("deploy={}", deploy.display())].map(str::to_owned);
        // What is changed while no control plane runs is a row of its own; the webhook would refuse it then.
        let driven =
            ["--set", "driver=kubectl", "--set", "istiod.webhook-fail-closed=false"].map(str::to_owned);
        match self {
            Self::Folder => Vec::new(),
            Self::Kube => served.into(),
            Self::Kubectl => served.into_iter().chain(driven).collect(),
        }
    }
}

/// What this machine lacks to run the namespace tests; none if it can.
pub(super) fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root is needed".to_owned());
    }
    for program in ["ambit", "ztunnel", "istiod-lite", "ambit-cni", "http-peer"] {
        let path = binaries().join(program);
        if !path.is_file() {
            return Some(format!(
                "{} is missing; build it with: cargo build --workspace --bins",
                path.display()
            ));
        }
    }
    let there = |tool: &str| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
        folders.iter().any(|folder| Path::new(folder).join(tool).exists())
    };
    TOOLS
        .into_iter()
        .find(|t| !there(t))
        .map(|t| format!("{t} is not installed; install it with: xtask/need.sh test"))
}

/// What this machine lacks for a lab over a real API server; none if it can.
fn lacking_kube() -> Option<String> {
    let folder = binaries();
    let named = std::env::var_os("AMBIT_KUBE_BIN").map(PathBuf::from);
    let beside = [Some(folder.join("ambit-kube")), folder.parent().map(|up| up.join("kube/ambit-kube"))];
    let mut places = named.into_iter().chain(beside.into_iter().flatten());
    let found = places.any(|place| place.is_file());
    (!found).then(|| "the program ambit-kube was not built; build it with: make kube".to_owned())
}
