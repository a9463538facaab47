//! What the service accounts of the mesh may do, held against what the roles that are installed with them grant, and
//! whether whoever asks may install it.
//!
//! The roles are read, not repeated: every verb on every resource that they grant is asked about, so that none can be
//! left out. Only the words for what does not work without are kept here, and a test demands them for each.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::finding::Category;
use crate::bundle;

/// Questions under way at once.
const PARALLEL: usize = 16;

/// One verb on one resource that an account is granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    /// Service account, in the control plane's namespace.
    pub(super) account: String,
    /// API group; empty for the core group.
    pub(super) group: String,
    /// Resource in plural, with its subresource behind a slash.
    pub(super) resource: String,
    /// The one object; empty for every object.
    pub(super) name: String,
    /// Whether it is about the control plane's namespace only.
    pub(super) own: bool,
    /// What is done.
    pub(super) verb: String,
}

/// What does not work without rights of one sort.
pub(super) struct Purpose {
    /// Service account.
    account: &'static str,
    /// API group.
    group: &'static str,
    /// Resources, with their subresource behind a slash.
    resources: &'static [&'static str],
    /// The one object; every object if it is empty.
    name: &'static str,
    /// Verbs that this is about; all if it is empty.
    verbs: &'static [&'static str],
    /// In words.
    without: &'static str,
}

const fn purpose(
    account: &'static str,
    group: &'static str,
    resources: &'static [&'static str],
    without: &'static str,
) -> Purpose {
    Purpose { account, group, resources, name: "", verbs: &[], without }
}

const fn named(mut of: Purpose, name: &'static str) -> Purpose {
    of.name = name;
    of
}

const fn to(mut of: Purpose, verbs: &'static [&'static str]) -> Purpose {
    of.verbs = verbs;
    of
}

const ISTIOD: &str = "istiod";
const CNI: &str = "ambit-cni";
const GATEWAYS: &str = "gateway.networking.k8s.io";
const MADE: &[&str] = &["create", "patch", "delete"];
const NO_WAYPOINTS: &str = "waypoints are not made, or not removed";
const NO_STATUS: &str = "objects do not show how they stand";
const NO_ROOT: &str = "namespaces of the mesh have no root of trust, or an old one";
const NO_AUTHORITY: &str = "there is no certificate authority, or it does not follow a rotation";
const NO_ROTATION: &str = "a rotation of the root does not go on";
const NO_LEADER: &str = "nobody leads: nothing is written";

/// What each right is for; the first that fits counts.
pub(super) const PURPOSES: &[Purpose] = &[
    purpose(ISTIOD, "", &["namespaces", "nodes", "pods"], "the mesh does not know its workloads"),
    to(purpose(ISTIOD, "", &["services"], NO_WAYPOINTS), MADE),
    purpose(ISTIOD, "", &["services"], "the mesh does not know its services"),
    purpose(ISTIOD, "discovery.k8s.io", &["endpointslices"], "services have no endpoints"),
    purpose(
        ISTIOD,
        "networking.k8s.io",
        &["networkpolicies"],
        "same-node connections may pass by NetworkPolicies",
    ),
    purpose(
        ISTIOD,
        "security.istio.io",
        &["authorizationpolicies", "peerauthentications", "requestauthentications"],
        "policies are not in force",
    ),
    purpose(
        ISTIOD,
        "networking.istio.io",
        &["serviceentries", "workloadentries"],
        "entries are not in force",
    ),
    purpose(ISTIOD, "networking.istio.io", &["virtualservices"], "virtual services are not in force"),
    purpose(ISTIOD, "ambit.internal", &["trafficpolicies"], "traffic policies are not in force"),
    purpose(ISTIOD, "ambit.internal", &["egresspolicies"], "egress policies are not in force"),
    purpose(
        ISTIOD,
        GATEWAYS,
        &["gateways", "httproutes", "grpcroutes", "tcproutes", "tlsroutes", "referencegrants"],
        "waypoints and routes are not in force",
    ),
    purpose(ISTIOD, GATEWAYS, &["gatewayclasses"], "there are no waypoints"),
    purpose(ISTIOD, "", &["services/status"], NO_STATUS),
    purpose(
        ISTIOD,
        "security.istio.io",
        &["authorizationpolicies/status", "peerauthentications/status", "requestauthentications/status"],
        NO_STATUS,
    ),
    purpose(ISTIOD, "networking.istio.io", &["serviceentries/status", "virtualservices/status"], NO_STATUS),
    purpose(ISTIOD, "ambit.internal", &["trafficpolicies/status", "egresspolicies/status"], NO_STATUS),
    purpose(ISTIOD, GATEWAYS, &["gateways/status"], "waypoints never have an address"),
    purpose(
        ISTIOD,
        GATEWAYS,
        &[
            "gatewayclasses/status",
            "httproutes/status",
            "grpcroutes/status",
            "tcproutes/status",
            "tlsroutes/status",
        ],
        NO_STATUS,
    ),
    purpose(ISTIOD, "events.k8s.io", &["events"], "no Event tells what is wrong"),
    purpose(ISTIOD, "authentication.k8s.io", &["tokenreviews"], "no proxy can prove who it is"),
    named(purpose(ISTIOD, "", &["configmaps"], NO_ROOT), "istio-ca-root-cert"),
    purpose(
        ISTIOD,
        "certificates.k8s.io",
        &["clustertrustbundles", "signers"],
        "there is no ClusterTrustBundle",
    ),
    purpose(
        ISTIOD,
        "admissionregistration.k8s.io",
        &["validatingwebhookconfigurations"],
        "the API server cannot ask the webhook",
    ),
    purpose(ISTIOD, "apps", &["deployments"], NO_WAYPOINTS),
    purpose(ISTIOD, "", &["serviceaccounts"], NO_WAYPOINTS),
    purpose(ISTIOD, "policy", &["poddisruptionbudgets"], NO_WAYPOINTS),
    purpose(ISTIOD, "autoscaling", &["horizontalpodautoscalers"], NO_WAYPOINTS),
    named(purpose(ISTIOD, "", &["secrets"], NO_AUTHORITY), "istio-ca-secret"),
    named(purpose(ISTIOD, "", &["secrets"], "an authority that is plugged in is not used"), "cacerts"),
    purpose(ISTIOD, "", &["secrets"], NO_AUTHORITY),
    named(purpose(ISTIOD, "", &["configmaps"], NO_ROTATION), "istio-ca-rotation"),
    named(purpose(ISTIOD, "", &["configmaps"], "settings of the mesh are not in force"), "istio"),
    purpose(
        ISTIOD,
        "",
        &["configmaps"],
        "a rotation of the root does not go on, and the webhook never refuses in our absence",
    ),
    purpose(ISTIOD, "coordination.k8s.io", &["leases"], NO_LEADER),
    purpose(CNI, "", &["pods", "namespaces"], "no pod is captured"),
    purpose(CNI, "", &["pods/status"], "the mesh does not know which pods are captured"),
    purpose(CNI, "events.k8s.io", &["events"], "no Event tells which pods are captured"),
    purpose(CNI, "apps", &["daemonsets"], "pods keep their rules when the mesh is removed"),
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

impl Purpose {
    fn fits(&self, right: &Right) -> bool {
        self.account == right.account
            && self.group == right.group
            && self.resources.contains(&right.resource.as_str())
            && (self.name.is_empty() || self.name == right.name)
            && (self.verbs.is_empty() || self.verbs.contains(&right.verb.as_str()))
    }
}

impl Right {
    /// The question about it.
    pub(super) fn attributes(&self, namespace: &str) -> Value {
        let (resource, sub) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        json!({
            "group": self.group,
            "resource": resource,
            "subresource": sub,
            "name": self.name,
            "namespace": if self.own { namespace } else { "" },
            "verb": self.verb,
        })
    }

    /// It in words, unlike any other of the account: `patch gateways/status of gateway.networking.k8s.io`.
    pub(super) fn words(&self, namespace: &str) -> String {
        let mut words = format!("{} {}", self.verb, self.resource);
        if !self.group.is_empty() {
            words.push_str(&format!(" of {}", self.group));
        }
        if !self.name.is_empty() {
            words.push_str(&format!(" named {}", self.name));
        }
        if self.own {
            words.push_str(&format!(" in {namespace}"));
        }
        words
    }

    /// Which of [`PURPOSES`] it is for.
    pub(super) fn purpose(&self) -> Option<usize> {
        PURPOSES.iter().position(|purpose| purpose.fits(self))
    }

    fn without(&self) -> &'static str {
        self.purpose().map_or("something of the mesh does not work", |at| PURPOSES[at].without)
    }
}

/// Every right that roles grant to service accounts by their bindings, in order, each once.
pub(super) fn granted(objects: &[Value]) -> Vec<Right> {
    let bindings =
        objects.iter().filter(|one| one["kind"] == "RoleBinding" || one["kind"] == "ClusterRoleBinding");
    let mut rights = Vec::new();
    for binding in bindings {
        let is_role = |one: &&Value| {
            one["kind"] == binding["roleRef"]["kind"]
                && one["metadata"]["name"] == binding["roleRef"]["name"]
                && (one["kind"] == "ClusterRole"
                    || one["metadata"]["namespace"] == binding["metadata"]["namespace"])
        };
        let own = binding["kind"] == "RoleBinding";
        let rules: Vec<&Value> =
            objects.iter().filter(is_role).filter_map(|role| role["rules"].as_array()).flatten().collect();
        for account in texts(&binding["subjects"], |subject| subject["name"].as_str()) {
            rules.iter().for_each(|rule| rights.extend(of_rule(rule, account, own)));
        }
    }
    rights.sort();
    rights.dedup();
    rights
}

fn of_rule(rule: &Value, account: &str, own: bool) -> Vec<Right> {
    let list = |field: &str| texts(&rule[field], Value::as_str);
    let mut names = list("resourceNames");
    if names.is_empty() {
        names.push("");
    }
    let mut rights = Vec::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            for name in &names {
                rights.extend(list("verbs").into_iter().map(|verb| Right {
                    account: account.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    name: (*name).to_owned(),
                    own,
                    verb: verb.to_owned(),
                }));
            }
        }
    }
    rights
}

fn texts<'v>(list: &'v Value, text: impl Fn(&'v Value) -> Option<&'v str>) -> Vec<&'v str> {
    list.as_array().into_iter().flatten().filter_map(text).collect()
}

/// Asks about every right of every account.
pub(super) async fn look(cluster: &Cluster) -> Category {
    let mut category = Category::new("Rights of the service accounts");
    let objects = match bundle::everything() {
        Ok(objects) => objects,
        Err(cause) => {
            category.warn("the roles of this program cannot be read", cause.to_string(), "");
            return category;
        }
    };
    let rights = granted(&objects);
    let answers = rights.iter().map(|right| async move {
        (right, cluster.may(Some(&right.account), right.attributes(&cluster.namespace)).await)
    });
    let answers: Vec<_> = futures_util::stream::iter(answers).buffered(PARALLEL).collect().await;
    judge(&mut category, &cluster.namespace, &answers);
    category
}

/// Tells of each account what it lacks.
pub(super) fn judge(category: &mut Category, namespace: &str, answers: &[(&Right, Result<bool, String>)]) {
    for account in [ISTIOD, CNI] {
        let of_account = || answers.iter().filter(move |(right, _)| right.account == account);
        if let Some(cause) = of_account().find_map(|(_, answer)| answer.as_ref().err()) {
            category.warn(
                format!("service account {account}"),
                format!("what it may do cannot be asked: {cause}"),
                "ask as somebody who may create subjectaccessreviews",
            );
            continue;
        }
        let mut lacking = of_account().filter(|(_, answer)| *answer == Ok(false)).peekable();
        if lacking.peek().is_none() {
            category.good(format!("service account {account} may do everything it has to"));
        }
        for (right, _) in lacking {
            let what = format!("service account {account} may not {}", right.words(namespace));
            category.bad(what, right.without(), "ambit install | kubectl apply -f -");
        }
    }
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
