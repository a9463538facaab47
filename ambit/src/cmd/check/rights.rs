//! What the service accounts of the mesh need to be allowed, and who installs it; the same as `deploy/20-rbac.yaml`.

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::finding::Category;

/// Rights of one sort.
pub(super) struct Need {
    /// Service account, in the control plane's namespace.
    pub(super) account: &'static str,
    /// API group.
    pub(super) group: &'static str,
    /// Resources, with their subresource behind a slash.
    pub(super) resources: &'static [&'static str],
    /// The one object; every object if it is empty.
    pub(super) name: &'static str,
    /// Whether it is about the control plane's namespace only.
    pub(super) own: bool,
    /// What is done.
    pub(super) verbs: &'static [&'static str],
    /// What does not work without.
    pub(super) without: &'static str,
}

const fn need(
    account: &'static str,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    without: &'static str,
) -> Need {
    Need { account, group, resources, name: "", own: false, verbs, without }
}

const fn named(mut of: Need, name: &'static str) -> Need {
    of.name = name;
    of
}

const fn own(mut of: Need) -> Need {
    of.own = true;
    of
}

const ISTIOD: &str = "istiod";
const CNI: &str = "ambit-cni";
const FOLLOW: &[&str] = &["list", "watch"];
const MADE: &[&str] = &["create", "patch", "delete"];

/// Everything that is needed.
pub(super) const NEEDS: &[Need] = &[
    need(
        ISTIOD,
        "",
        &["namespaces", "nodes", "pods", "services"],
        FOLLOW,
        "the mesh does not know its workloads",
    ),
    need(ISTIOD, "discovery.k8s.io", &["endpointslices"], FOLLOW, "services have no endpoints"),
    need(
        ISTIOD,
        "networking.k8s.io",
        &["networkpolicies"],
        FOLLOW,
        "same-node connections may pass by NetworkPolicies",
    ),
    need(
        ISTIOD,
        "security.istio.io",
        &["authorizationpolicies", "peerauthentications", "requestauthentications"],
        FOLLOW,
        "policies are not in force",
    ),
    need(
        ISTIOD,
        "networking.istio.io",
        &["serviceentries", "workloadentries"],
        FOLLOW,
        "entries are not in force",
    ),
    need(ISTIOD, "ambit.internal", &["trafficpolicies"], FOLLOW, "traffic policies are not in force"),
    need(
        ISTIOD,
        "gateway.networking.k8s.io",
        &["gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"],
        FOLLOW,
        "waypoints and routes are not in force",
    ),
    need(ISTIOD, "authentication.k8s.io", &["tokenreviews"], &["create"], "no proxy can prove who it is"),
    need(ISTIOD, "", &["services/status"], &["patch"], "services do not show how they stand"),
    need(
        ISTIOD,
        "gateway.networking.k8s.io",
        &["gateways/status", "httproutes/status", "grpcroutes/status"],
        &["patch"],
        "waypoints never have an address",
    ),
    need(
        ISTIOD,
        "security.istio.io",
        &["authorizationpolicies/status"],
        &["patch"],
        "policies do not show how they stand",
    ),
    need(ISTIOD, "", &["configmaps"], &["create"], "enrolled namespaces have no root of trust"),
    named(
        need(ISTIOD, "", &["configmaps"], &["get", "patch"], "the root of trust does not follow a rotation"),
        "istio-ca-root-cert",
    ),
    named(
        need(
            ISTIOD,
            "admissionregistration.k8s.io",
            &["validatingwebhookconfigurations"],
            &["get", "patch"],
            "the API server cannot ask the webhook",
        ),
        "istio-validator-istio-system",
    ),
    need(ISTIOD, "apps", &["deployments"], MADE, "waypoints are not made"),
    need(ISTIOD, "", &["services", "serviceaccounts"], MADE, "waypoints are not made"),
    own(need(ISTIOD, "", &["secrets"], &["create"], "there is no certificate authority")),
    own(named(
        need(ISTIOD, "", &["secrets"], &["get", "update"], "certificates end at a restart"),
        "istio-ca-secret",
    )),
    own(need(ISTIOD, "coordination.k8s.io", &["leases"], &["create"], "nobody leads: nothing is written")),
    own(named(
        need(
            ISTIOD,
            "coordination.k8s.io",
            &["leases"],
            &["get", "update"],
            "nobody leads: nothing is written",
        ),
        "istiod-lite",
    )),
    need(CNI, "", &["pods", "namespaces"], FOLLOW, "no pod is captured"),
    need(CNI, "", &["pods/status"], &["patch"], "the mesh does not know which pods are captured"),
];

/// What whoever installs the mesh has to be allowed.
const INSTALL: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
];

impl Need {
    /// The question about one resource and verb.
    pub(super) fn attributes(&self, namespace: &str, resource: &str, verb: &str) -> Value {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        json!({
            "group": self.group,
            "resource": resource,
            "subresource": sub,
            "name": self.name,
            "namespace": if self.own { namespace } else { "" },
            "verb": verb,
        })
    }
}

/// Asks about every right of every account.
pub(super) async fn look(cluster: &Cluster) -> Category {
    let mut rights = Category::new("Rights of the service accounts");
    for account in [ISTIOD, CNI] {
        let mut lacking = Vec::new();
        let of_account = NEEDS.iter().filter(|need| need.account == account);
        for need in of_account {
            for (resource, verb) in need.resources.iter().flat_map(|r| need.verbs.iter().map(move |v| (r, v)))
            {
                let question = need.attributes(&cluster.namespace, resource, verb);
                match cluster.may(Some(account), question).await {
                    Ok(true) => {}
                    Ok(false) => lacking.push((format!("{verb} {resource}"), need.without)),
                    Err(cause) => {
                        rights.warn(
                            format!("service account {account}"),
                            format!("what it may do cannot be asked: {cause}"),
                            "ask as somebody who may create subjectaccessreviews",
                        );
                        return rights;
                    }
                }
            }
        }
        if lacking.is_empty() {
            rights.good(format!("service account {account} may do everything it has to"));
        }
        for (what, without) in lacking {
            let what = format!("service account {account} may not {what}");
            rights.bad(what, without, "ambit install | kubectl apply -f -");
        }
    }
    rights
}

/// Whether whoever asks may install the mesh.
pub(super) async fn to_install(cluster: &Cluster, category: &mut Category) {
    for (group, resource) in INSTALL {
        let question = json!({ "group": group, "resource": resource, "verb": "create" });
        match cluster.may(None, question).await {
            Ok(true) => category.good(format!("you may create {resource}")),
            Ok(false) => category.bad(
                format!("you may not create {resource}"),
                "the mesh cannot be installed by you",
                "install it as an administrator of the cluster",
            ),
            Err(cause) => category.warn(format!("whether you may create {resource}"), cause, ""),
        }
    }
}
