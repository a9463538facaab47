//! A pod's namespace, its link, and the files bound over the machine's own: made and removed as one.
//!
//! Blocking calls; run them away from the daemon's loop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use ambit_net::linux::netns::{NETNS_DIR, NetNs, NetNsError};
use ambit_runtime::clock;

use crate::address::{self, Families};
use crate::error::LabError;
use crate::kube::images;
use crate::link::Place;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::pod::plan::{ContainerPlan, PodPlan};
use crate::pod::volume::{Content, TokenFile, Volume};
use crate::process::{Bind, Container};
use crate::programs::spec;
use crate::token::{Bearer, Issuer};
use crate::topology::{self, Node};

/// Below a pod's directory: its volumes, one directory each.
pub const VOLUMES: &str = "volumes";

/// The DNS suffix of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Where pods of one node are made.
#[derive(Debug, Clone)]
pub struct Site {
    /// The lab.
    pub lab: LabName,
    /// Its files.
    pub run: RunDir,
    /// Address families in use.
    pub families: Families,
    /// The node.
    pub node: Node,
    /// The node's namespace.
    pub place: Arc<Place>,
    /// Kernel parameters of every pod.
    pub kernel: Vec<(&'static str, String)>,
    /// Issues the tokens of pods.
    pub issuer: Arc<Issuer>,
    /// Uid of the Node object, once it is known; before the first pod.
    pub node_uid: Arc<OnceLock<String>>,
}

/// A pod's namespace and files, in existence.
#[derive(Debug)]
pub struct Sandbox {
    /// The pod's network namespace; its node's for a pod in the host network.
    pub netns: NetNs,
    hostname: String,
    binds: Vec<Bind>,
    directory: PathBuf,
}

impl Sandbox {
    /// What one container of the pod sees of its own.
    pub fn container(&self, pod: &PodPlan, plan: &ContainerPlan) -> Container {
        let mut binds = self.binds.clone();
        for mount in &plan.mounts {
            let Some(volume) = pod.volumes.iter().find(|v| v.name == mount.volume) else { continue };
            let root = match &volume.content {
                Content::Host(path) => path.clone(),
                Content::Empty | Content::Files(_) => self.directory.join(VOLUMES).join(&volume.name),
            };
            let from = if mount.sub_path.is_empty() { root } else { root.join(&mount.sub_path) };
            binds.push(Bind { from, to: mount.path.clone(), read_only: mount.read_only });
        }
        let scratch = self.directory.join("layers").join(&plan.name);
        Container { hostname: self.hostname.clone(), binds, scratch }
    }
}

/// Makes namespace, link, addresses and files of a pod.
///
/// # Errors
/// If a pod with the same namespace file exists, or the system refuses; what was made is removed again.
pub fn create(site: &Site, plan: &PodPlan) -> Result<Sandbox, LabError> {
    let error = match create_parts(site, plan) {
        Ok(sandbox) => return Ok(sandbox),
        Err(error) => error,
    };
    if let Some(netns) = taken(&error) {
        // That namespace is another pod's: it must not be removed with this one.
        return Err(LabError::Failed(format!(
            "network namespace {netns} is there already: the pod before it has not ended yet, or another pod's \
             namespace and name, joined by a dash, read the same; then rename one of the two"
        )));
    }
    if let Err(e) = remove(site, plan) {
        tracing::warn!(pod = plan.name, error = %e.full(), "removing a pod that could not be made");
    }
    Err(error)
}

/// The name of the namespace that somebody else has, if that is what went wrong.
fn taken(error: &LabError) -> Option<&str> {
    match error {
        LabError::NetNs(NetNsError::Create { name, cause })
            if cause.kind() == io::ErrorKind::AlreadyExists =>
        {
            Some(name)
        }
        _ => None,
    }
}

fn create_parts(site: &Site, plan: &PodPlan) -> Result<Sandbox, LabError> {
    let netns = if plan.host_network {
        site.place.netns.try_clone().map_err(LabError::file("opening namespace", site.place.name.clone()))?
    } else {
        let who = (plan.namespace.as_str(), plan.name.as_str());
        let place =
            topology::create_pod(&site.lab, &site.place, &site.node, who, &plan.addresses, site.families)?;
        place.set(&site.kernel)?;
        place.netns
    };
    let directory = site.run.pods().join(&plan.uid);
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&directory)
        .map_err(LabError::file("making directory", directory.clone()))?;
    let mut binds = Vec::new();
    for (name, target, text) in files(site.families, plan) {
        let from = directory.join(name);
        fs::write(&from, text).map_err(LabError::file("writing", from.clone()))?;
        match fs::canonicalize(target) {
            Ok(to) => binds.push(Bind { from, to, read_only: false }),
            Err(e) => {
                tracing::warn!(file = target, error = %e, "the machine has no such file to bind a pod's own over")
            }
        }
    }
    link_sandbox(site, plan)?;
    fill_volumes(&directory, plan)?;
    if let Some(socket) = images::admin_socket(plan) {
        let link = spec::waypoint_admin(&site.run, &plan.uid);
        symlink(socket, &link).map_err(LabError::file("linking the admin socket at", link))?;
    }
    for (bearer, file) in tokens(site, plan) {
        site.issuer.refresh(&bearer, &file, clock::wall())?;
    }
    Ok(Sandbox { netns, hostname: plan.name.clone(), binds, directory })
}

/// Makes the pod's volumes below its directory.
fn fill_volumes(directory: &Path, plan: &PodPlan) -> Result<(), LabError> {
    for volume in &plan.volumes {
        let place = directory.join(VOLUMES).join(&volume.name);
        let files = match &volume.content {
            Content::Host(_) => continue,
            Content::Empty => &BTreeMap::new(),
            Content::Files(files) => files,
        };
        fs::create_dir_all(&place).map_err(LabError::file("making volume", place.clone()))?;
        for (name, text) in files {
            let file = place.join(name);
            let parent = file.parent().unwrap_or(&place);
            fs::create_dir_all(parent).map_err(LabError::file("making directory", parent))?;
            fs::write(&file, text).map_err(LabError::file("writing", file.clone()))?;
        }
        for token in &volume.tokens {
            // The token itself is written by who issues it.
            let file = place.join(&token.path);
            let parent = file.parent().unwrap_or(&place);
            fs::create_dir_all(parent).map_err(LabError::file("making directory", parent))?;
        }
    }
    Ok(())
}

/// The tokens in a pod's volumes: whose they are and in which file.
pub fn tokens(site: &Site, plan: &PodPlan) -> Vec<(Bearer, PathBuf)> {
    let bearer = |file: &TokenFile| Bearer {
        namespace: plan.namespace.clone(),
        service_account: plan.service_account.clone(),
        pod: plan.name.clone(),
        pod_uid: plan.uid.clone(),
        node: plan.node.clone(),
        node_uid: site.node_uid.get().cloned().unwrap_or_default(),
        audience: file.audience.clone(),
        life: file.life,
    };
    let volumes = site.run.pods().join(&plan.uid).join(VOLUMES);
    let of_volume = |volume: &Volume| {
        let place = volumes.join(&volume.name);
        let named = |file: &TokenFile| (bearer(file), place.join(&file.path));
        volume.tokens.iter().map(named).collect::<Vec<_>>()
    };
    plan.volumes.iter().flat_map(of_volume).collect()
}

/// Removes namespace, link and files of a pod; missing parts are no error.
///
/// # Errors
/// If the system refuses.
pub fn remove(site: &Site, plan: &PodPlan) -> Result<(), LabError> {
    let link = site.run.sandboxes().join(&plan.uid);
    gone_is_fine(fs::remove_file(&link)).map_err(LabError::file("removing", link))?;
    if !plan.host_network {
        topology::remove_pod(&site.lab, &site.place, &plan.namespace, &plan.name)?;
    }
    let directory = site.run.pods().join(&plan.uid);
    gone_is_fine(fs::remove_dir_all(&directory)).map_err(LabError::file("removing", directory))
}

fn link_sandbox(site: &Site, plan: &PodPlan) -> Result<(), LabError> {
    if plan.host_network {
        return Ok(());
    }
    let target = PathBuf::from(NETNS_DIR).join(site.lab.pod(&plan.namespace, &plan.name));
    let link = site.run.sandboxes().join(&plan.uid);
    symlink(&target, &link).map_err(LabError::file("linking the pod's namespace at", link))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Name, place and text of the files a pod has of its own.
fn files(families: Families, plan: &PodPlan) -> [(&'static str, &'static str, String); 2] {
    [
        ("resolv.conf", "/etc/resolv.conf", resolv_conf(&address::dns(families), &plan.namespace)),
        ("hosts", "/etc/hosts", hosts(&plan.addresses, &plan.name)),
    ]
}

fn resolv_conf(servers: &[IpAddr], namespace: &str) -> String {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let _ = writeln!(text, "search {namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}");
    let _ = writeln!(text, "options ndots:5");
    text
}

fn hosts(addresses: &[IpAddr], pod: &str) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        let _ = writeln!(text, "{address} {pod}");
    }
    text
}
