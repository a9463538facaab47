//! The mesh's own programs as the cluster knows them: a pod object each, with an account and tokens that are its own.
//!
//! The programs are the lab's parts and run where they always do. Their pods make them somebody to the API server:
//! tokens are bound to them, and who asks whether such a pod lives on a node finds it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::NAMESPACE;
use super::api::{self, Api, Refusal};
use super::cluster::Cluster;
use super::settings::Caller;
use super::tokens;
use crate::address::{self, Families, NodeIndex};
use crate::config::LabConfig;
use crate::error::LabError;
use crate::paths::RunDir;
use crate::programs::Target;
use crate::store::{Kind, ObjectKey};
use crate::token::{API_AUDIENCE, AUDIENCE, Bearer};

/// On the pod of one of the lab's own programs: which one it is. No kubelet starts anything for it.
pub const PROGRAM: &str = "ambit.internal/program";
/// The account of the control plane, of the node proxy, of the node agent, as in the manifests.
const ISTIOD: &str = "istiod";
const ZTUNNEL: &str = "ztunnel";
const CNI: &str = "ambit-cni";
/// By which the control plane's pods are found, as in the manifests.
const NAME_LABEL: &str = "app.kubernetes.io/name";
const ISTIOD_NAME: &str = "istiod-lite";
/// Life of the tokens, refreshed at four fifths of it: the shortest that an API server gives.
const LIFE: Duration = Duration::from_secs(600);

/// The pod of a replica of the control plane.
pub fn istiod_pod(replica: u16) -> String {
    format!("istiod-lite-{}", replica + 1)
}

/// One of the lab's own programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The part of the lab.
    pub target: Target,
    /// Its pod.
    pub pod: String,
    /// Its account.
    pub account: &'static str,
    /// The node that its pod is on.
    pub node: String,
}

impl Member {
    /// The key of its pod.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(Kind::Pod, Some(NAMESPACE), &self.pod)
    }

    /// As in the manifests: the node agent alone shares its node's network.
    fn in_node_network(&self) -> bool {
        self.account == CNI
    }

    /// The addresses of its pod on `node`.
    pub fn addresses(&self, node: NodeIndex, families: Families) -> Vec<IpAddr> {
        match &self.target {
            Target::Istiod => address::control_planes(families, 0),
            Target::Replica(replica) => address::control_planes(families, *replica),
            Target::Ztunnel(_) => node.proxy(families),
            Target::Cni(_) | Target::Kube(_) | Target::Pod { .. } | Target::Waypoint { .. } => {
                node.fabric(families)
            }
        }
    }

    fn object(&self) -> Value {
        let mut labels = json!({"istio.io/dataplane-mode": "none"});
        if self.account == ISTIOD {
            labels[NAME_LABEL] = json!(ISTIOD_NAME);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": NAMESPACE, "name": self.pod,
                "annotations": {PROGRAM: self.target.to_string()},
                "labels": labels,
            },
            "spec": {
                "serviceAccountName": self.account, "automountServiceAccountToken": false,
                "nodeName": self.node, "hostNetwork": self.in_node_network(),
                "containers": [{"name": self.account, "image": self.account}],
            },
        })
    }
}

/// The programs of a lab.
pub fn all(config: &LabConfig) -> Vec<Member> {
    let first = config.nodes.first().cloned().unwrap_or_default();
    let replicas = 0..config.kube.istiod_replicas;
    let istiods = replicas.map(|replica| Member {
        target: Target::istiod(replica),
        pod: istiod_pod(replica),
        account: ISTIOD,
        node: first.clone(),
    });
    let of_node = |node: &String| {
        let member = |target, account: &'static str| Member {
            target,
            pod: format!("{account}-{node}"),
            account,
            node: node.clone(),
        };
        [member(Target::Ztunnel(node.clone()), ZTUNNEL), member(Target::Cni(node.clone()), CNI)]
    };
    istiods.chain(config.nodes.iter().flat_map(of_node)).collect()
}

/// Whether a pod is that of one of the lab's own programs.
pub fn is_member(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(PROGRAM))
        && pod.metadata.namespace.as_deref() == Some(NAMESPACE)
}

/// A program with the uid of its pod.
pub type Declared = (Member, String);

/// Makes the accounts and pods of the programs; those there are stay.
///
/// # Errors
/// What the API server refused.
pub async fn declare(api: &Api, config: &LabConfig) -> Result<Vec<Declared>, Refusal> {
    for account in [ISTIOD, ZTUNNEL, CNI] {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": NAMESPACE, "name": account},
        });
        api.post_once(&api::path("v1", "serviceaccounts", Some(NAMESPACE), ""), &object).await?;
    }
    let mut declared = Vec::new();
    for member in all(config) {
        api.post_once(&api::path("v1", "pods", Some(NAMESPACE), ""), &member.object()).await?;
        let pod = api.get(&api::path_of(&member.key())).await?;
        declared.push((member, super::mirror::uid_of(&pod)));
    }
    Ok(declared)
}

/// Whose tokens go into which files; writes the kubeconfigs that name them.
///
/// # Errors
/// If a file cannot be written.
pub fn credentials(
    cluster: &Cluster,
    config: &LabConfig,
    run: &RunDir,
    declared: &[Declared],
) -> Result<Vec<(Bearer, PathBuf)>, LabError> {
    let mut all = Vec::new();
    for (member, uid) in declared {
        let bearer = |audience: &str| Bearer {
            namespace: NAMESPACE.to_owned(),
            service_account: member.account.to_owned(),
            pod: member.pod.clone(),
            pod_uid: uid.clone(),
            node: member.node.clone(),
            node_uid: String::new(),
            audience: audience.to_owned(),
            life: LIFE,
        };
        let (kubeconfig, is_istiod) = match &member.target {
            Target::Ztunnel(node) => {
                all.push((bearer(AUDIENCE), run.node(node).join("token")));
                continue;
            }
            Target::Cni(node) => (run.cni_kubeconfig(node), false),
            Target::Istiod => (run.istiod_kubeconfig(0), true),
            Target::Replica(replica) => (run.istiod_kubeconfig(*replica), true),
            Target::Kube(_) | Target::Pod { .. } | Target::Waypoint { .. } => continue,
        };
        if let Some(folder) = kubeconfig.parent() {
            let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
            made.map_err(LabError::file("making directory", folder))?;
        }
        let wanted = if is_istiod { config.kube.istiod_kubeconfig } else { Caller::Account };
        if cluster.rights() && wanted == Caller::Account {
            let token = kubeconfig.with_extension("token");
            let text = tokens::kubeconfig(&cluster.server, &cluster.ca, &token);
            write_private(&kubeconfig, &text)?;
            all.push((bearer(API_AUDIENCE), token));
        } else {
            tracing::info!(pod = member.pod, "calls the API server as its administrator");
            let admin = fs::read_to_string(run.kubeconfig());
            let admin = admin.map_err(LabError::file("reading", run.kubeconfig()))?;
            write_private(&kubeconfig, &admin)?;
        }
    }
    Ok(all)
}

fn write_private(path: &Path, text: &str) -> Result<(), LabError> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(LabError::file("writing", path))
}

/// The status of a program's pod on `node`.
pub fn status(member: &Member, node: NodeIndex, families: Families, ready: bool) -> Value {
    let list = |all: &[IpAddr]| all.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<Value>>();
    let (own, host) = (member.addresses(node, families), node.fabric(families));
    let state = if ready { json!({"running": {}}) } else { json!({"waiting": {"reason": "NotReady"}}) };
    json!({
        "phase": "Running", "podIP": own.first(), "podIPs": list(&own), "hostIP": host.first(), "hostIPs": list(&host),
        "containerStatuses": [{
            "name": member.account, "image": member.account, "imageID": "", "ready": ready, "started": ready,
            "restartCount": 0, "state": state,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Node;

    #[test]
    fn every_program_is_a_pod_of_its_own() {
        let mut config = LabConfig { nodes: vec!["a".to_owned(), "b".to_owned()], ..LabConfig::default() };
        config.kube.istiod_replicas = 2;
        let got: Vec<(String, String)> =
            all(&config).into_iter().map(|m| (m.target.to_string(), m.pod)).collect();
        let want = [
            ("istiod", "istiod-lite-1"),
            ("istiod/2", "istiod-lite-2"),
            ("ztunnel/a", "ztunnel-a"),
            ("cni/a", "ambit-cni-a"),
            ("ztunnel/b", "ztunnel-b"),
            ("cni/b", "ambit-cni-b"),
        ];
        let want = want.map(|(target, pod)| (target.to_owned(), pod.to_owned()));
        assert_eq!(got, want);
    }

    #[test]
    fn a_proxys_pod_has_addresses_that_are_not_its_nodes() {
        let mut config = LabConfig { nodes: vec!["a".to_owned()], ..LabConfig::default() };
        config.kube.istiod_replicas = 1;
        let node = Node { name: "a".to_owned(), index: NodeIndex::nth(0).expect("a node") };
        let of_node = node.index.all(Families::Dual);
        let mut got = Vec::new();
        for member in all(&config) {
            let (object, status) = (member.object(), status(&member, node.index, Families::Dual, true));
            let own: Vec<IpAddr> = member.addresses(node.index, Families::Dual);
            let listed = status["podIPs"].as_array().map(Vec::len);
            assert_eq!((listed, status["podIP"].as_str()), (Some(2), Some(own[0].to_string().as_str())));
            let is_shared = object["spec"]["hostNetwork"] == true;
            assert!(own.iter().all(|address| of_node.contains(address) == is_shared), "{member:?}");
            got.push((member.pod, is_shared, own[0].to_string()));
        }
        let want = [
            ("istiod-lite-1", false, "172.30.0.254"),
            ("ztunnel-a", false, "10.244.1.254"),
            ("ambit-cni-a", true, "172.30.0.1"),
        ];
        assert_eq!(got, want.map(|(pod, shared, address)| (pod.to_owned(), shared, address.to_owned())));
    }

    #[test]
    fn a_programs_pod_is_known_by_its_mark_in_the_meshs_namespace_alone() {
        let config = LabConfig { nodes: vec!["a".to_owned()], ..LabConfig::default() };
        let object = all(&config).remove(0).object();
        let mut pod: Pod = serde_json::from_value(object).expect("a pod");
        assert!(is_member(&pod));
        pod.metadata.namespace = Some("shop".to_owned());
        assert!(!is_member(&pod));
    }
}
