//! The cluster's own control plane: started in the fabric before anything else of the lab, ended after it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::api::Api;
use super::spec::KubePart;
use super::{connect, deploy};
use crate::address;
use crate::config::LabConfig;
use crate::error::LabError;
use crate::link::Place;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::process::{self, Launch, MEMBER_ENV, Running, Signaller};

/// Where the API server listens.
const PORT: u16 = 6443;
/// How long everything may take to be ready; a machine with much to do needs most of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the program prints once it serves.
#[derive(Debug, Clone, Deserialize)]
struct Started {
    kubeconfig: PathBuf,
    server: String,
    ca: PathBuf,
    pids: Pids,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pids {
    etcd: u32,
    apiserver: u32,
    controller_manager: u32,
}

/// A cluster's control plane that was started.
#[derive(Debug)]
pub struct Cluster {
    /// The program.
    pub binary: PathBuf,
    /// The API server's URL, as nodes and pods reach it.
    pub server: String,
    /// The certificate authority of the cluster.
    pub ca: PathBuf,
    /// The way to it, as its administrator.
    pub api: Api,
    pids: Pids,
    parent: Signaller,
    rights: OnceLock<bool>,
}

impl Cluster {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started or does not serve in time; with its last words.
    pub async fn start(
        (lab, run): (&LabName, &RunDir),
        config: &LabConfig,
        runner: &Path,
        fabric: &Arc<Place>,
    ) -> Result<Self, LabError> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(run.kube());
        made.map_err(LabError::file("making directory", run.kube()))?;
        add_addresses(config, fabric)?;
        let log = run.kube_log();
        let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let launch = Launch {
            runner: runner.to_owned(),
            argv: arguments(config, run),
            env: vec![
                ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
                (MEMBER_ENV.to_owned(), lab.to_string()),
            ],
            directory: "/".into(),
            netns: fabric.netns.try_clone().map_err(LabError::file("opening namespace", &fabric.name))?,
            container: None,
            log: open.map_err(LabError::file("opening log", log.clone()))?,
        };
        let mut parent = tokio::task::block_in_place(|| process::start(launch))?;
        let started = wait(&mut parent, &log).await?;
        let client = connect::client(&started.kubeconfig, Arc::clone(fabric)).await?;
        Ok(Self {
            binary: config.kube.binary.clone(),
            server: started.server,
            ca: started.ca,
            api: Api::new(client),
            pids: started.pids,
            parent: parent.signaller(),
            rights: OnceLock::new(),
        })
    }

    /// Applies the mesh's definitions and rights, if there are manifests.
    ///
    /// # Errors
    /// What was refused.
    pub fn apply_manifests(
        &self,
        config: &LabConfig,
        fabric: &Arc<Place>,
        run: &RunDir,
    ) -> Result<(), LabError> {
        let Some(folder) = &config.kube.deploy else {
            tracing::warn!("no manifests of the mesh were found: only built-in kinds are served");
            return Ok(());
        };
        let rights = deploy::apply(folder, &self.binary, fabric, run)?;
        // Said once: this runs once.
        let _ = self.rights.set(rights);
        Ok(())
    }

    /// Whether the programs' accounts have rights of their own.
    pub fn rights(&self) -> bool {
        self.rights.get().copied().unwrap_or(false)
    }

    /// The process of a part as it was started at first.
    pub fn first_pid(&self, part: KubePart) -> u32 {
        match part {
            KubePart::Etcd => self.pids.etcd,
            KubePart::ApiServer => self.pids.apiserver,
            KubePart::ControllerManager => self.pids.controller_manager,
        }
    }

    /// Whether a part does its work; `socket` is that of the store.
    pub async fn is_ready(&self, part: KubePart, socket: &Path) -> bool {
        match part {
            KubePart::Etcd => tokio::net::UnixStream::connect(socket).await.is_ok(),
            KubePart::ApiServer => self.api.is_ready().await,
            // It serves nothing that could be asked; it follows the API server from its start on.
            KubePart::ControllerManager => true,
        }
    }

    /// Tells it to end.
    pub fn end(&self) {
        if let Err(error) = self.parent.send(Signal::SIGTERM) {
            tracing::warn!(%error, "ending the cluster's control plane");
        }
    }
}

/// Gives further replicas of the mesh's control plane their addresses.
fn add_addresses(config: &LabConfig, fabric: &Place) -> Result<(), LabError> {
    let more: Vec<_> =
        (1..config.kube.istiod_replicas).flat_map(|n| address::control_planes(config.families, n)).collect();
    fabric.act(async |links| {
        let index = links.index(crate::topology::BRIDGE).await?;
        for address in more {
            links.address(index, address, address::fabric_prefix(address)).await?;
        }
        Ok(())
    })
}

fn arguments(config: &LabConfig, run: &RunDir) -> Vec<String> {
    let families = config.families;
    let text = |all: Vec<String>| all.join(",");
    let own: Vec<String> = address::bridge(families).iter().map(ToString::to_string).collect();
    let bind = own.first().cloned().unwrap_or_default();
    let ranges = text(address::service_cidrs(families).iter().map(ToString::to_string).collect());
    let flags = [
        ("--dir", run.kube().to_string_lossy().into_owned()),
        ("--bind", bind),
        ("--port", PORT.to_string()),
        ("--service-cidr", ranges),
        ("--san", text(own)),
        ("--timeout", format!("{}s", PATIENCE.as_secs())),
    ];
    let program = config.kube.binary.to_string_lossy().into_owned();
    let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    [program, "up".to_owned()].into_iter().chain(flags).collect()
}

/// Waits for the line that says where it serves.
async fn wait(parent: &mut Running, log: &Path) -> Result<Started, LabError> {
    let failed = |why: &str| {
        let told = process::tail(log);
        LabError::Failed(format!("the cluster's control plane {why}; its last lines:\n{told}"))
    };
    let line = async {
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(started) = whole.filter_map(|line| serde_json::from_str(line).ok()).next() {
                return started;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        started = tokio::time::timeout(PATIENCE, line) => {
            started.map_err(|_| failed(&format!("does not serve after {} s", PATIENCE.as_secs())))
        }
        exit = &mut parent.ended => {
            let code = exit.map_or(255, |exit| exit.code);
            Err(failed(&format!("ended with exit code {code}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_program_is_understood() {
        let line = r#"{"kubeconfig":"/k/admin.kubeconfig","server":"https://172.30.0.254:6443","ca":"/k/pki/ca.crt","auditLog":"/k/audit.log","pids":{"etcd":2,"apiserver":3,"controllerManager":4}}"#;
        let started: Started = serde_json::from_str(line).expect("the line");
        assert_eq!((started.pids.etcd, started.pids.controller_manager), (2, 4));
        assert!(serde_json::from_str::<Started>(r#"{"exited":"etcd","pid":1,"status":"killed"}"#).is_err());
    }

    #[test]
    fn it_listens_where_nodes_reach_it_and_serves_the_labs_ranges() {
        let run = RunDir::of(&LabName::default());
        let got = arguments(&LabConfig::default(), &run);
        let after = |flag: &str| got.iter().skip_while(|arg| *arg != flag).nth(1).map(String::as_str);
        assert_eq!(after("--bind"), Some("172.30.0.254"));
        assert_eq!(after("--service-cidr"), Some("10.96.0.0/16,fd00:10:96::/112"));
        assert_eq!(after("--san"), Some("172.30.0.254,fd00:172:30::254"));
    }
}
