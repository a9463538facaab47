//! What a lab is started with: nodes, address families, settings. Parsed once; written to the lab's directory.
//!
//! The manifests are not part of it: they live in the object store.

use std::collections::BTreeMap;
use std::fs;
use std::str::FromStr as _;

use serde::{Deserialize, Serialize};

use crate::address::{Families, NODES_MAX, NodeIndex};
use crate::error::LabError;
use crate::kube::{KubeSettings, Source};
use crate::paths::RunDir;
use crate::topology::Node;

/// Nodes of a lab that declares none.
pub const NODES_DEFAULT: usize = 2;

/// Settings that `--set` knows, with what they mean.
pub const SETTINGS: [(&str, &str); 9] = [
    ("ip_families", "ipv4, ipv6 or dual; default dual"),
    ("tcp_congestion", "congestion control of every namespace, such as cubic; default the kernel's"),
    ("leaf_ttl", "life of a workload certificate, such as 20s; default 24h"),
    ("trust_domain", "default cluster.local"),
    ("log_level", "filter of the mesh's programs, such as debug; default info"),
    ("ztunnel.NAME", "environment variable NAME of every ztunnel"),
    ("waypoint.NAME", "environment variable NAME of every waypoint"),
    ("istiod.NAME", "flag --NAME of istiod-lite"),
    ("cni.NAME", "flag --NAME of every ambit-cni"),
];

/// How a lab was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabConfig {
    /// Nodes by name, in order.
    pub nodes: Vec<String>,
    /// Address families.
    pub families: Families,
    /// Where objects live.
    #[serde(default)]
    pub source: Source,
    /// Settings for an API server.
    #[serde(default)]
    pub kube: KubeSettings,
    /// Whether control plane, node agents and proxies are started.
    pub mesh: bool,
    /// Congestion control of every namespace; none leaves the kernel's.
    pub tcp_congestion: Option<String>,
    /// Filter of the mesh's logs.
    pub log_level: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Extra environment of ztunnel.
    pub ztunnel: BTreeMap<String, String>,
    /// Extra environment of waypoints.
    #[serde(default)]
    pub waypoint: BTreeMap<String, String>,
    /// Extra flags of istiod-lite.
    pub istiod: BTreeMap<String, String>,
    /// Extra flags of ambit-cni.
    pub cni: BTreeMap<String, String>,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            families: Families::Dual,
            source: Source::Folder,
            kube: KubeSettings::default(),
            mesh: true,
            tcp_congestion: None,
            log_level: "info".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            ztunnel: BTreeMap::new(),
            waypoint: BTreeMap::new(),
            istiod: BTreeMap::new(),
            cni: BTreeMap::new(),
        }
    }
}

impl LabConfig {
    /// Applies one `KEY=VALUE` of `--set`.
    ///
    /// # Errors
    /// Names the keys there are, if this is none of them.
    pub fn set(&mut self, setting: &str) -> Result<(), LabError> {
        let unknown = |what: String| {
            let known = SETTINGS.iter().chain(&KubeSettings::KNOWN);
            let known: Vec<String> = known.map(|(k, m)| format!("  {k}  {m}")).collect();
            LabError::Usage(format!("{what}; settings are:\n{}", known.join("\n")))
        };
        let Some((key, value)) = setting.split_once('=') else {
            return Err(unknown(format!("--set {setting} is not KEY=VALUE")));
        };
        if self.kube.set(key, value)? {
            return Ok(());
        }
        let value = value.to_owned();
        match (key, key.split_once('.')) {
            ("ip_families", _) => self.families = Families::from_str(&value).map_err(LabError::Usage)?,
            ("tcp_congestion", _) => self.tcp_congestion = Some(value),
            ("log_level", _) => self.log_level = value,
            ("trust_domain", _) => self.trust_domain = value,
            ("leaf_ttl", _) => _ = self.istiod.insert("leaf-ttl".to_owned(), value),
            (_, Some(("ztunnel", name))) if !name.is_empty() => {
                _ = self.ztunnel.insert(name.to_owned(), value)
            }
            (_, Some(("waypoint", name))) if !name.is_empty() => {
                _ = self.waypoint.insert(name.to_owned(), value)
            }
            (_, Some(("istiod", name))) if !name.is_empty() => _ = self.istiod.insert(name.to_owned(), value),
            (_, Some(("cni", name))) if !name.is_empty() => _ = self.cni.insert(name.to_owned(), value),
            _ => return Err(unknown(format!("--set {key} is no setting"))),
        }
        Ok(())
    }

    /// Names the nodes: those declared, or `node1` to `nodeN`.
    ///
    /// # Errors
    /// If there are none, too many, or a name whose namespace file would be too long.
    pub fn name_nodes(&mut self, declared: Vec<String>, count: Option<usize>) -> Result<(), LabError> {
        self.nodes = match (declared.is_empty(), count) {
            (true, count) => (1..=count.unwrap_or(NODES_DEFAULT)).map(|n| format!("node{n}")).collect(),
            (false, None) => declared,
            (false, Some(n)) if n == declared.len() => declared,
            (false, Some(n)) => {
                return Err(LabError::Usage(format!(
                    "--nodes {n}, but the manifests declare {} Node objects; leave --nodes out",
                    declared.len()
                )));
            }
        };
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            let n = self.nodes.len();
            return Err(LabError::Usage(format!("a lab has 1 to {NODES_MAX} nodes, not {n}")));
        }
        Ok(())
    }

    /// Says what this machine does not allow of what was asked, before anything is made.
    ///
    /// # Errors
    /// With the command that would allow it.
    pub fn check_machine(&self) -> Result<(), LabError> {
        const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
        let Some(wanted) = &self.tcp_congestion else { return Ok(()) };
        let allowed = fs::read_to_string(ALLOWED).map_err(LabError::file("reading", ALLOWED))?;
        if allowed.split_whitespace().any(|name| name == wanted) {
            return Ok(());
        }
        let allowed = allowed.trim();
        Err(LabError::Failed(format!(
            "the machine lets namespaces choose only the congestion controls {allowed}, not {wanted}; as root: \
             modprobe tcp_{wanted}; sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{allowed} {wanted}\""
        )))
    }

    /// Kernel parameters of every namespace.
    pub fn kernel_parameters(&self) -> Vec<(&'static str, String)> {
        // The fabric drops what is too large for a narrow link and tells nobody; TCP finds the size by itself then.
        let probing = ("net.ipv4.tcp_mtu_probing", "1".to_owned());
        let congestion = self.tcp_congestion.clone().map(|name| ("net.ipv4.tcp_congestion_control", name));
        congestion.into_iter().chain([probing]).collect()
    }

    /// The nodes with their numbers.
    pub fn topology(&self) -> Vec<Node> {
        let numbered = self.nodes.iter().enumerate();
        numbered
            .filter_map(|(i, name)| Some(Node { name: name.clone(), index: NodeIndex::nth(i)? }))
            .collect()
    }

    /// Writes it to the lab's directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, run: &RunDir) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| LabError::Usage(e.to_string()))?;
        fs::write(run.config(), text).map_err(LabError::file("writing", run.config()))
    }

    /// Reads it from the lab's directory.
    ///
    /// # Errors
    /// If the file is missing or not what [`LabConfig::save`] writes.
    pub fn load(run: &RunDir) -> Result<Self, LabError> {
        let path = run.config();
        let text = fs::read_to_string(&path).map_err(LabError::file("reading", path.clone()))?;
        serde_json::from_str(&text).map_err(|e| LabError::file("understanding", path)(e.into()))
    }
}

#[cfg(test)]
mod tests;
