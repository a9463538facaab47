//! The cluster before the mesh is installed: old enough, with the Gateway API, and free of another mesh.

use serde_json::Value;

use super::cluster::{Answer, Cluster};
use super::finding::Category;
use super::rights;
use crate::cmd::install::plan::is_ours;

/// Oldest minor version of Kubernetes 1: the first where webhooks have conditions.
const MINOR_MIN: u64 = 30;
/// Kinds of the Gateway API that are needed, and those that are read where they are served.
const GATEWAY_KINDS: &[&str] = &["gatewayclasses", "gateways", "httproutes", "grpcroutes"];
/// What other meshes leave in a cluster: path, and what it is.
const RIVALS: &[(&str, &str)] = &[
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector",
        "Istio's sidecar injector",
    ),
    ("/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node", "Istio's node agent"),
    ("/apis/apps/v1/namespaces/istio-system/deployments/istiod", "Istio's control plane"),
    ("/api/v1/namespaces/linkerd", "Linkerd"),
];

/// Definitions of Istio's kinds that an installation brings along unless told not to.
pub(super) const SHARED: &[&str] = &[
    "authorizationpolicies.security.istio.io",
    "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io",
    "serviceentries.networking.istio.io",
    "workloadentries.networking.istio.io",
    "virtualservices.networking.istio.io",
];

/// Looks at the cluster.
pub(super) async fn look(cluster: &Cluster) -> Vec<Category> {
    let (api, answers) = api(cluster).await;
    if !answers {
        return vec![api];
    }
    let mut room = Category::new("Room for the mesh");
    for (path, what) in RIVALS {
        rival(&mut room, what, &cluster.get(path).await);
    }
    let mut shared = Vec::with_capacity(SHARED.len());
    for name in SHARED {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        shared.push((*name, cluster.get(&path).await));
    }
    definitions(&mut room, &shared);
    cilium(&mut room, &cluster.get("/api/v1/namespaces/kube-system/configmaps/cilium-config").await);
    let mut may = Category::new("Your own rights");
    rights::to_install(cluster, &mut may).await;
    vec![api, room, may]
}

/// The API server, and whether it answers at all.
pub(super) async fn api(cluster: &Cluster) -> (Category, bool) {
    let mut api = Category::new("Kubernetes API");
    let answers = version(&mut api, &cluster.get("/version").await);
    if answers {
        gateway_api(&mut api, &cluster.get("/apis/gateway.networking.k8s.io/v1").await);
    }
    (api, answers)
}

/// Whether the API server answers, and is new enough.
pub(super) fn version(api: &mut Category, answer: &Answer) -> bool {
    let Some(version) = answer.found() else {
        let why = match answer {
            Answer::Unknown(cause) => cause.clone(),
            Answer::Missing | Answer::Found(_) => "it does not tell its version".to_owned(),
        };
        api.bad("the API server does not answer", why, "kubectl version");
        return false;
    };
    let named = version["gitVersion"].as_str().unwrap_or("of an unknown version");
    let digits = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or_default()
    };
    if digits(&version["major"]) > 1 || digits(&version["minor"]) >= MINOR_MIN {
        api.good(format!("the API server answers, {named}"));
    } else {
        let why =
            format!("older than v1.{MINOR_MIN}: it cannot bound which objects the webhook is asked about");
        api.bad(format!("the API server is {named}"), why, "upgrade the cluster");
    }
    true
}

/// Whether the Gateway API is served.
pub(super) fn gateway_api(api: &mut Category, answer: &Answer) {
    let next = "install the Gateway API's standard channel first; docs/install.md says which";
    let served = answer.found().and_then(|list| list["resources"].as_array());
    let Some(served) = served else {
        return api.bad("the Gateway API is not served", "waypoints and routes are its objects", next);
    };
    let is_served = |kind: &str| served.iter().any(|one| one["name"] == kind);
    let missing: Vec<&str> = GATEWAY_KINDS.iter().copied().filter(|kind| !is_served(kind)).collect();
    if missing.is_empty() {
        api.good("the Gateway API is served");
    } else {
        api.bad("the Gateway API is not served whole", format!("there are no {}", missing.join(", ")), next);
    }
}

fn rival(room: &mut Category, what: &str, answer: &Answer) {
    match answer {
        Answer::Found(_) => room.warn(
            format!("{what} is installed"),
            "two meshes cannot capture the same pod",
            "see that no namespace of it is labelled istio.io/dataplane-mode=ambient, or move over as docs/install.md says",
        ),
        Answer::Missing => room.good(format!("{what} is not there")),
        Answer::Unknown(cause) => room.warn(format!("{what}: not known whether it is there"), cause.clone(), ""),
    }
}

/// Whether somebody else's definitions of Istio's kinds would be replaced. Those of an earlier installation of ours are.
pub(super) fn definitions(room: &mut Category, found: &[(&str, Answer)]) {
    let named = |is_meant: &dyn Fn(&Answer) -> bool| {
        let meant = found.iter().filter(|(_, answer)| is_meant(answer));
        meant.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let others = named(&|answer| answer.found().is_some_and(|live| !is_ours(live)));
    let unknown = found.iter().find_map(|(_, answer)| match answer {
        Answer::Unknown(cause) => Some(cause),
        Answer::Found(_) | Answer::Missing => None,
    });
    if !others.is_empty() {
        room.warn(
            format!("definitions of Istio's kinds are not ours: {others}"),
            "kubectl apply of our own in their place would drop fields that we do not import from objects that are stored",
            "ambit install --set crds.istio=false | kubectl apply -f -",
        );
    }
    match unknown {
        Some(cause) => {
            let which = named(&|answer| matches!(answer, Answer::Unknown(_)));
            room.warn(format!("not known whether there are others' definitions: {which}"), cause.clone(), "");
        }
        None if others.is_empty() => room.good("nobody else's definitions of Istio's kinds are there"),
        None => {}
    }
}

/// Cilium removes the configuration of others from the nodes unless told not to.
pub(super) fn cilium(room: &mut Category, answer: &Answer) {
    let Some(config) = answer.found() else { return };
    if config["data"]["cni-exclusive"] == "false" {
        room.good("Cilium lets other CNI plugins be");
    } else {
        room.bad(
            "Cilium takes our CNI plugin out of the nodes",
            "its setting cni.exclusive is not false",
            "helm upgrade cilium cilium/cilium -n kube-system --reuse-values --set cni.exclusive=false",
        );
    }
}
