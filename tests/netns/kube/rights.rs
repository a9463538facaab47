//! Row 1: the manifests are accepted as they are, and the rights in them are enough and not more than that.
//!
//! Enough: in the API server's audit log no request of the mesh's programs was refused. Not more: each verb on each
//! resource was used there, or says here when it is. And none is missed in silence: `ambit check` names each one that
//! is taken away, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit::bundle::PARTS;
use ambit_runtime::clock;
use ambit_tests::lab::{Lab, ambit, soak};
use serde_json::{Value, json};

use super::kubectl;

mod audit;
mod roles;
mod scenario;

use roles::Right;

/// The category of `ambit check` that this is about.
const CATEGORY: &str = "Rights of the service accounts";
/// How long the API server may take to see changed roles.
const SEEN: Duration = Duration::from_secs(20);

/// Verbs that the run does not use: on what, and when they are.
const RARE: &[(&[&str], &[&str], &str)] = &[
    (
        &["list"],
        &[
            "namespaces",
            "nodes",
            "pods",
            "endpointslices",
            "networkpolicies",
            "workloadentries",
            "gatewayclasses",
            "gateways",
            "referencegrants",
            "configmaps named istio",
        ],
        "where the API server does not list by watch",
    ),
    (
        &["get"],
        &[
            "namespaces",
            "nodes",
            "pods",
            "endpointslices",
            "networkpolicies",
            "referencegrants",
            "configmaps named istio",
        ],
        "of an object that cannot be read, as of workloadentries in the run",
    ),
    (
        &["attest"],
        &["signers named istio.io/istiod-ca"],
        "asked by admission of the ClusterTrustBundle, which is there",
    ),
    (
        &["get", "patch", "delete"],
        &["configmaps named istio-ca-rotation"],
        "in a rotation of the root, which has a test of its own",
    ),
    (&["get"], &["daemonsets named ambit-cni"], "when a node agent stops, for good or not"),
];

#[test]
fn the_manifests_are_accepted_and_their_rights_are_enough_and_none_is_missed_in_silence() {
    let Some(lab) = Lab::up_kube("rights", &scenario::cast(), &[]) else { return };
    every_object_is_accepted(&lab);
    scenario::run(&lab);
    nothing_was_denied(&lab);
    every_right_was_used(&lab);
    each_right_is_missed(&lab);
}

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("it is a folder of the repository").to_owned()
}

/// As the manual says it, with unknown and double fields refused. What would run a second mesh is not stored.
#[track_caller]
fn every_object_is_accepted(lab: &Lab) {
    let path = |name: &str| repository().join(name).display().to_string();
    let (folder, daemons) = (path("deploy"), path("daemonset.yaml"));
    let strictly = ["apply", "--server-side", "--force-conflicts", "--validate=strict"];
    let files = ["--dry-run=server", "-f", &folder, "-f", &daemons];
    let said = kubectl(lab, &[&strictly[..], &files].concat());
    let texts = PARTS.iter().filter(|part| !part.path.contains("optional"));
    let count = |text: &str| text.lines().filter(|line| line.starts_with("kind: ")).count();
    let objects: usize = texts.map(|part| count(part.text)).sum();
    let accepted = said.lines().filter(|line| line.contains("serverside-applied")).count();
    assert_eq!(accepted, objects, "{said}");
    let stored = kubectl(lab, &[&strictly[..], &["-f", &path("deploy/50-networkpolicies.yaml")]].concat());
    assert!(stored.lines().all(|line| line.contains("serverside-applied")), "{stored}");
}

#[track_caller]
fn nothing_was_denied(lab: &Lab) {
    let requests = audit::requests(lab);
    let denied: BTreeSet<String> =
        requests.iter().filter(|one| one.is_denied()).map(audit::Request::shown).collect();
    assert!(denied.is_empty(), "requests of the mesh were refused: {denied:#?}");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for request in &requests {
        *counts.entry(request.account()).or_default() += 1;
    }
    println!("requests by account: {counts:?}");
    let accounts: Vec<&str> = counts.into_keys().collect();
    assert_eq!(accounts, ["ambit-cni", "istiod"], "a ztunnel never speaks to the API server");
}

#[track_caller]
fn every_right_was_used(lab: &Lab) {
    let requests = audit::requests(lab);
    let is_used = |right: &Right| requests.iter().any(|request| request.uses(right));
    let rights = roles::rights(&roles::installed());
    let unused: Vec<&Right> = rights.iter().filter(|right| !is_used(right)).collect();
    println!("{} of {} rights were used", rights.len() - unused.len(), rights.len());
    let needless: Vec<String> =
        unused.iter().filter(|right| rarely(right).is_none()).map(|right| right.lacking()).collect();
    assert!(needless.is_empty(), "rights that nobody used: {needless:#?}");
    for right in unused {
        println!("not in this run: {}: {}", right.lacking(), rarely(right).unwrap_or_default());
    }
    // The one right that no request of its own shows.
    let bundle = ["get", "clustertrustbundle", "istio.io:istiod-ca:root-cert", "-o", "name"];
    assert!(!kubectl(lab, &bundle).is_empty());
}

/// When a right is used that the run may not use.
fn rarely(right: &Right) -> Option<&'static str> {
    let what = match right.name.as_str() {
        "" => right.resource.clone(),
        name => format!("{} named {name}", right.resource),
    };
    let fits = |verbs: &[&str], on: &[&str]| verbs.contains(&&*right.verb) && on.contains(&&*what);
    RARE.iter().find(|(verbs, on, _)| fits(verbs, on)).map(|(_, _, when)| *when)
}

/// Takes rights away and demands that exactly those are named. In short the first verb on every resource at once, then
/// every second one, and so on; in full each alone.
#[track_caller]
fn each_right_is_missed(lab: &Lab) {
    let installed = roles::installed();
    let rights = roles::rights(&installed);
    is_named(lab, &BTreeSet::new());
    let mut covered = 0;
    for gone in removals(&rights) {
        covered += gone.len();
        replace(lab, &roles::without(&installed, &gone));
        is_named(lab, &gone);
    }
    assert_eq!(covered, rights.len(), "each right is taken away once");
    replace(lab, &installed);
    is_named(lab, &BTreeSet::new());
}

fn removals(rights: &[Right]) -> Vec<BTreeSet<Right>> {
    if soak() {
        return rights.iter().map(|right| BTreeSet::from([right.clone()])).collect();
    }
    let mut rounds: Vec<BTreeSet<Right>> = Vec::new();
    let mut verbs: BTreeMap<Right, usize> = BTreeMap::new();
    for right in rights {
        // How many verbs of the same resource came before.
        let nth = verbs.entry(Right { verb: String::new(), ..right.clone() }).or_default();
        if rounds.len() == *nth {
            rounds.push(BTreeSet::new());
        }
        rounds[*nth].insert(right.clone());
        *nth += 1;
    }
    rounds
}

fn replace(lab: &Lab, roles: &[Value]) {
    let items = json!({"apiVersion": "v1", "kind": "List", "items": roles});
    let file = lab.file("roles.json", &items.to_string());
    let _ = kubectl(lab, &["replace", "-f", &file]);
}

/// Demands that `ambit check` names these rights as lacking, and no others.
#[track_caller]
fn is_named(lab: &Lab, gone: &BTreeSet<Right>) {
    let wanted: BTreeSet<String> = gone.iter().map(Right::lacking).collect();
    let end = clock::monotonic() + SEEN;
    let mut told = checked(lab);
    while told != wanted && clock::monotonic() < end {
        told = checked(lab);
    }
    assert_eq!(told, wanted);
}

/// What `ambit check` finds wrong with the rights of the accounts.
#[track_caller]
fn checked(lab: &Lab) -> BTreeSet<String> {
    let kubeconfig = lab.run_dir().join("kube/admin.kubeconfig").display().to_string();
    let program = ambit();
    let command = [&*program, "check", "--kubeconfig", &kubeconfig, "-o", "json"];
    let output = lab.on_node("node1", &command);
    let found: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in {output:?}"));
    let mut categories = found["categories"].as_array().into_iter().flatten();
    let rights = categories.find(|one| one["categoryName"] == CATEGORY).expect("the category");
    let checks = rights["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["result"] != "warning"), "{rights:#}");
    for check in checks.iter().filter(|check| check["result"] == "error") {
        assert!(check["error"].as_str().is_some_and(|why| !why.is_empty()), "not said what for: {check:#}");
    }
    let lacking = checks.iter().filter(|check| check["result"] == "error");
    lacking.map(|check| check["description"].as_str().expect("a text").to_owned()).collect()
}
