//! Findings, their order and the exit code that follows from them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cluster::Answer;
use super::finding::{Category, Outcome, text};
use super::machine::{FEATURES, judge, ruleset};
use super::{FailOn, before, code, installed, left, rights};
use crate::{bundle, out};

/// The findings of a category in short: the mark's word and what.
fn found(category: &Category) -> Vec<String> {
    category.checks.iter().map(|check| format!("{:?} {}", check.outcome, check.what)).collect()
}

fn list(items: Value) -> Answer {
    Answer::Found(json!({ "items": items }))
}

#[test]
fn a_finding_says_why_and_what_to_do() {
    let mut category = Category::new("Nodes");
    category.good("ztunnel: ready on 2 of 2 nodes");
    category.bad("ambit-cni is not ready on node n1", "CrashLoopBackOff", "kubectl logs x");
    let all = text(&[category.clone()], false);
    let want = "Nodes\n  ✓ ztunnel: ready on 2 of 2 nodes\n  ✗ ambit-cni is not ready on node n1: CrashLoopBackOff\n      \
                -> kubectl logs x\n\nResult: 1 error, 0 warnings. Nothing was changed.\n";
    assert_eq!(all, want);
    assert!(!text(&[category.clone()], true).contains('✓'));
    let json = category.json();
    assert_eq!(json["checks"][1]["result"], "error");
    assert_eq!(json["checks"][0]["hint"], Value::Null);
}

#[test]
fn warnings_fail_only_where_it_was_asked_for() {
    let mut category = Category::new("c");
    category.warn("w", "", "");
    let warned = [category.clone()];
    assert_eq!(code(&warned, FailOn::Error), out::OK);
    assert_eq!(code(&warned, FailOn::Warning), out::FINDINGS);
    category.bad("b", "", "");
    assert_eq!(code(&[category.clone()], FailOn::Error), out::FINDINGS);
    assert_eq!(code(&[category], FailOn::Never), out::OK);
    assert_eq!(code(&[], FailOn::Warning), out::OK);
}

#[test]
fn an_old_or_silent_api_server_is_an_error() {
    let of = |answer: Answer| {
        let mut api = Category::new("api");
        (before::version(&mut api, &answer), api.checks[0].outcome)
    };
    let version = |minor: &str| Answer::Found(json!({ "major": "1", "minor": minor, "gitVersion": "v" }));
    assert_eq!(of(version("35")), (true, Outcome::Good));
    assert_eq!(of(version("30+")), (true, Outcome::Good));
    assert_eq!(of(version("29")), (true, Outcome::Error));
    assert_eq!(of(Answer::Unknown("connection refused".to_owned())), (false, Outcome::Error));
}

#[test]
fn definitions_of_somebody_else_are_not_to_be_replaced() {
    let ours =
        || Answer::Found(json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "ambit" } } }));
    let others = || Answer::Found(json!({ "metadata": { "labels": { "release": "istio" } } }));
    let unknown = || Answer::Unknown("forbidden".to_owned());
    let of = |answers: &[(&str, Answer)]| {
        let mut room = Category::new("room");
        before::definitions(&mut room, answers);
        room
    };
    let good = ["Good nobody else's definitions of Istio's kinds are there"];
    assert_eq!(found(&of(&[("a", ours()), ("b", Answer::Missing)])), good);
    let room = of(&[("a", others()), ("b", ours()), ("c", others())]);
    assert_eq!(found(&room), ["Warning definitions of Istio's kinds are not ours: a, c"]);
    assert_eq!(room.checks[0].next, "ambit install --set crds.istio=false | kubectl apply -f -");
    let want = [
        "Warning definitions of Istio's kinds are not ours: a",
        "Warning not known whether there are others' definitions: b",
    ];
    assert_eq!(found(&of(&[("a", others()), ("b", unknown())])), want);
    assert_eq!(found(&of(&[("b", unknown())])), want[1..]);
}

#[test]
fn every_definition_that_the_setting_leaves_out_is_looked_at() {
    let names = |objects: &[Value]| -> BTreeSet<String> {
        let definitions = objects.iter().filter(|one| one["kind"] == "CustomResourceDefinition");
        definitions.filter_map(|one| Some(one["metadata"]["name"].as_str()?.to_owned())).collect()
    };
    let without = bundle::Settings::parse(&["crds.istio=false".to_owned()]).unwrap();
    let (all, kept) = (names(&bundle::everything().unwrap()), names(&bundle::objects(&without).unwrap()));
    let left_out: Vec<&str> = all.difference(&kept).map(String::as_str).collect();
    let looked_at: BTreeSet<&str> = before::SHARED.iter().copied().collect();
    assert_eq!(left_out, looked_at.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_webhook_that_cannot_be_asked_is_found() {
    let of = |bundle: &str, policy: &str, name: &str| {
        let mut category = Category::new("webhook");
        let service = json!({ "name": "istiod", "namespace": "istio-system" });
        let main = json!({ "name": "rev.validation.istio.io", "failurePolicy": "Fail", "clientConfig": { "caBundle": "x", "service": service } });
        let one = json!({ "name": name, "failurePolicy": policy, "clientConfig": { "caBundle": bundle, "service": service } });
        let webhooks = if name == "rev.validation.istio.io" { json!([one]) } else { json!([main, one]) };
        installed::webhook(&mut category, "istio-system", &Answer::Found(json!({ "webhooks": webhooks })));
        category.checks.last().unwrap().outcome
    };
    assert_eq!(of("x", "Fail", "rev.validation.istio.io"), Outcome::Good);
    assert_eq!(of("x", "Ignore", "rev.validation.istio.io"), Outcome::Warning);
    assert_eq!(of("", "Ignore", "rev.validation.istio.io"), Outcome::Error);
    assert_eq!(of("x", "Ignore", "labels.validation.ambit.internal"), Outcome::Good);
    assert_eq!(of("x", "Fail", "labels.validation.ambit.internal"), Outcome::Error);
    let mut category = Category::new("webhook");
    installed::webhook(&mut category, "istio-system", &Answer::Missing);
    assert_eq!(category.checks[0].outcome, Outcome::Error);
}

#[test]
fn nodes_without_a_ready_proxy_are_named() {
    let mut nodes = Category::new("nodes");
    let set = Answer::Found(json!({ "status": { "desiredNumberScheduled": 2, "numberReady": 1 } }));
    let pod = |name: &str, node: &str, ready: &str| {
        json!({
            "metadata": { "name": name }, "spec": { "nodeName": node },
            "status": {
                "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{ "state": { "waiting": { "reason": "CrashLoopBackOff" } } }],
            },
        })
    };
    let pods = list(json!([pod("z-1", "n1", "True"), pod("z-2", "n2", "False")]));
    installed::daemons(&mut nodes, "istio-system", "ztunnel", &set, &pods);
    assert_eq!(
        found(&nodes),
        ["Error ztunnel: ready on 1 of 2 nodes", "Error ztunnel is not ready on node n2"]
    );
    assert_eq!(nodes.checks[1].why, "CrashLoopBackOff");
}

#[test]
fn roots_of_trust_have_to_be_there_and_alike() {
    let of = |roots: Value| {
        let mut category = Category::new("roots");
        let enrolled = list(json!([{ "metadata": { "name": "shop" } }]));
        installed::root_maps(&mut category, "istio-system", &enrolled, &list(roots));
        category.checks[0].outcome
    };
    let map = |namespace: &str, pem: &str| json!({ "metadata": { "namespace": namespace }, "data": { "root-cert.pem": pem } });
    assert_eq!(of(json!([map("istio-system", "a"), map("shop", "a")])), Outcome::Good);
    assert_eq!(of(json!([map("istio-system", "a"), map("shop", "b")])), Outcome::Warning);
    assert_eq!(of(json!([map("istio-system", "a")])), Outcome::Error);
    assert_eq!(of(json!([map("istio-system", "a"), map("shop", "")])), Outcome::Error);
}

#[test]
fn pods_that_are_labelled_but_not_captured_are_found() {
    let pod = |name: &str, annotations: Value, labels: Value| {
        json!({
            "metadata": { "name": name, "annotations": annotations, "labels": labels },
            "spec": { "nodeName": "n1" }, "status": { "phase": "Running" },
        })
    };
    let mut category = Category::new("pods");
    let pods = list(json!([
        pod("a", json!({ "ambient.istio.io/redirection": "enabled" }), json!({})),
        pod("b", json!({}), json!({})),
        pod("c", json!({}), json!({ "istio.io/dataplane-mode": "none" })),
    ]));
    installed::captured(&mut category, "shop", &pods);
    assert_eq!(found(&category), ["Error shop: 1 of 2 pods captured"]);
    assert!(category.checks[0].why.starts_with("b are labelled"), "{:?}", category.checks);
}

#[test]
fn waypoints_that_are_away_or_not_ready_are_found() {
    let gateway = |name: &str, programmed: &str| {
        json!({
            "metadata": { "namespace": "shop", "name": name }, "spec": { "gatewayClassName": "istio-waypoint" },
            "status": { "conditions": [
                { "type": "Accepted", "status": "True" },
                { "type": "Programmed", "status": programmed, "message": "it has no address yet" },
            ] },
        })
    };
    let gateways = list(json!([gateway("good", "True"), gateway("slow", "False")]));
    let mut category = Category::new("waypoints");
    installed::ready(&mut category, &gateways);
    let user =
        |name: &str| json!({ "metadata": { "name": "shop", "labels": { "istio.io/use-waypoint": name } } });
    installed::used(&mut category, &gateways, &list(json!([user("good"), user("none"), user("ghost")])));
    assert_eq!(
        found(&category),
        [
            "Good waypoint shop/good is ready",
            "Error waypoint shop/slow is not Programmed",
            "Error namespace shop asks for the waypoint shop/ghost",
        ]
    );
}

#[test]
fn what_is_left_of_the_mesh_is_named_one_by_one() {
    let mut category = Category::new("left");
    left::gone(&mut category, "role", &list(json!([])));
    left::gone(&mut category, "daemonset", &list(json!([{ "metadata": { "namespace": "n", "name": "z" } }])));
    assert_eq!(found(&category), ["Good no role is left", "Error daemonset n/z is left"]);
}

#[test]
fn a_kernel_without_an_expression_is_told_with_its_module() {
    let mut kernel = Category::new("kernel");
    for feature in FEATURES {
        assert!(ruleset(feature).contains(feature.rule));
        judge(&mut kernel, feature, Err("Operation not supported".to_owned()));
    }
    assert!(kernel.checks.iter().all(|check| check.next.starts_with("sudo modprobe nf")), "{kernel:?}");
    let errors = kernel.checks.iter().filter(|check| check.outcome == Outcome::Error).count();
    assert_eq!(errors, 3, "without the others pods are captured all the same");
}

#[test]
fn every_right_that_is_installed_is_asked_about_and_has_its_purpose_in_words() {
    let rights = rights::granted(&bundle::everything().unwrap());
    let used: BTreeSet<usize> = rights
        .iter()
        .map(|right| right.purpose().unwrap_or_else(|| panic!("{right:?} is for nothing that is known")))
        .collect();
    let idle: Vec<usize> = (0..rights::PURPOSES.len()).filter(|at| !used.contains(at)).collect();
    assert!(idle.is_empty(), "purposes without a right: {idle:?}");
    let words: BTreeSet<String> =
        rights.iter().map(|right| format!("{} {}", right.account, right.words("istio-system"))).collect();
    assert_eq!(words.len(), rights.len(), "two rights have the same words");
    for wanted in [
        "istiod patch gateways/status of gateway.networking.k8s.io",
        "istiod watch secrets named istio-ca-secret in istio-system",
        "ambit-cni patch pods/status",
    ] {
        assert!(words.contains(wanted), "{wanted}: {words:#?}");
    }
    let accounts: BTreeSet<&str> = rights.iter().map(|right| right.account.as_str()).collect();
    assert_eq!(accounts, BTreeSet::from(["ambit-cni", "istiod"]), "a ztunnel has no rights");
}

#[test]
fn no_right_is_granted_twice() {
    // A right that two rules grant is not missed when one of them goes.
    let objects = bundle::everything().unwrap();
    let is_role = |one: &&Value| one["kind"] == "Role" || one["kind"] == "ClusterRole";
    // The node agent has an account of its own.
    let of_istiod =
        |one: &&Value| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("istiod"));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut granted: Vec<(Value, Value, Value, Value)> = Vec::new();
    let roles = objects.iter().filter(is_role).filter(of_istiod);
    for rule in roles.flat_map(|role| list(&role["rules"])) {
        for resource in list(&rule["resources"]) {
            for verb in list(&rule["verbs"]) {
                let right =
                    (rule["apiGroups"].clone(), resource.clone(), rule["resourceNames"].clone(), verb);
                assert!(!granted.contains(&right), "{right:?} is granted twice");
                granted.push(right);
            }
        }
    }
}

#[test]
fn each_right_that_lacks_is_named_with_what_it_is_for() {
    let all = rights::granted(&bundle::everything().unwrap());
    let lacks = |right: &rights::Right| right.verb == "patch" && right.resource == "gateways/status";
    let answers: Vec<_> = all.iter().map(|right| (right, Ok(!lacks(right)))).collect();
    let mut category = Category::new("rights");
    rights::judge(&mut category, "istio-system", &answers);
    assert_eq!(
        found(&category),
        [
            "Error service account istiod may not patch gateways/status of gateway.networking.k8s.io",
            "Good service account ambit-cni may do everything it has to",
        ]
    );
    assert_eq!(category.checks[0].why, "waypoints never have an address");
    let unknown: Vec<_> = all.iter().map(|right| (right, Err("forbidden".to_owned()))).collect();
    let mut category = Category::new("rights");
    rights::judge(&mut category, "istio-system", &unknown);
    assert!(category.checks.iter().all(|check| check.outcome == Outcome::Warning), "{category:?}");
}
