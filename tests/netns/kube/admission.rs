//! Nonsense is refused where it is written, with its field; what gets past that stays its author's own affair.
//!
//! The table is that of `tests/cases/admission.yaml`, here asked by a real API server. Its own validation of a kind may
//! refuse a row before the webhook is asked; either names the field.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, Output, soak, wait_until};
use serde_json::{Value, json};

use super::kubectl;
use crate::cast::{PORT, namespace, pod, security, server};

const TABLE: &str = include_str!("../../cases/admission.yaml");
const CONFIGURATION: &str = "validatingwebhookconfiguration/istio-validator-istio-system";
/// How many kinds of nonsense there are at least, and of how many the webhook itself has to speak.
const KINDS_MIN: usize = 20;
const OWN_MIN: usize = 10;
/// Commands that run at once.
const AT_ONCE: usize = 4;
/// Longest wait for the control plane to act.
const SETTLED: Duration = Duration::from_secs(60);
/// Longest single command here.
const COMMAND: Duration = Duration::from_secs(120);
/// Objects of the other tenant that nobody can read, and those of them that are large.
const BAD: usize = 200;
const LARGE: usize = 20;
/// What a busy machine may add to a measured time.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn nonsense_is_refused_with_its_field_and_what_slips_past_hurts_nobody_else() {
    let cast = [
        namespace("shop", true),
        namespace("bank", true),
        namespace("other", false),
        pod("shop/caller", "node1", &[]),
        server("shop/web", "node1"),
        pod("bank/caller", "node1", &[]),
        server("bank/vault", "node1"),
    ];
    let Some(lab) = Lab::up_kube("admission", &cast, &[]) else { return };
    wait_until("the webhook refuses in its absence", SETTLED, || policy_of_failure(&lab) == "Fail");
    every_row_is_refused(&lab);
    what_is_too_large_is_refused(&lab);
    valid_siblings_pass(&lab);

    assert!(serves(&lab, "shop", "web"));
    let before = pushed(&lab, "before");
    slip_past(&lab);
    wait_until("its status says what is wrong", SETTLED, || is_told(&lab, "bad-000", "spec.rules"));
    wait_until("the last one was read too", SETTLED, || {
        is_told(&lab, &format!("bad-{:03}", BAD - 1), "spec.rules")
    });
    wait_until("the leader closes again", SETTLED, || policy_of_failure(&lab) == "Fail");
    assert!(serves(&lab, "shop", "web"), "a policy that cannot be read changed what was in force");
    assert!(serves(&lab, "bank", "vault"), "another namespace's traffic was hurt");
    let after = pushed(&lab, "after");
    println!("policy to enforcement: {before:?}; with {BAD} bad objects elsewhere: {after:?}");
    assert!(after <= before * 2 + SLACK, "{after:?} with bad objects of another tenant, {before:?} without");
}

fn policy_of_failure(lab: &Lab) -> String {
    kubectl(lab, &["get", CONFIGURATION, "-o", "jsonpath={.webhooks[0].failurePolicy}"])
}

/// Runs kubectl, whatever its exit code.
#[track_caller]
fn tried(lab: &Lab, args: &[&str]) -> Output {
    lab.start(&[&["lab", "kubectl"], args].concat()).finish(COMMAND)
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[track_caller]
fn every_row_is_refused(lab: &Lab) {
    let table: Value = serde_saphyr::from_str(TABLE).expect("a table");
    let rows: Vec<&Value> = table["rows"].as_array().expect("rows").iter().collect();
    let rows: Vec<&Value> = rows.into_iter().filter(|row| row["refused"].is_string()).collect();
    assert!(rows.len() >= KINDS_MIN, "only {} kinds of nonsense", rows.len());
    let (mut wrong, mut own) = (Vec::new(), 0_usize);
    for (turn, some) in rows.chunks(AT_ONCE).enumerate() {
        let start = |(place, row): (usize, &&Value)| {
            let file = lab.file(&format!("row-{turn}-{place}.json"), &row["object"].to_string());
            lab.start(&["lab", "kubectl", "apply", "-f", &file])
        };
        let running: Vec<_> = some.iter().enumerate().map(start).collect();
        for (row, command) in some.iter().zip(running) {
            let output = command.finish(COMMAND);
            let is_own =
                ["The request is invalid", "admission webhook"].iter().any(|own| output.stderr.contains(own));
            own += usize::from(is_own);
            if output.code != Some(1) || !names(row, &output.stderr, is_own) {
                wrong.push(format!("{}: {output:?}", row["name"]));
            }
        }
    }
    println!("{} kinds of nonsense refused, {own} of them by the webhook", rows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(own >= OWN_MIN, "the webhook itself refused only {own}");
}

/// Whether a refusal names the row's field. A rule of a kind's definition may stand one step above it.
fn names(row: &Value, stderr: &str, is_own: bool) -> bool {
    let field = row["refused"].as_str().unwrap_or_default();
    let above = field.rsplit_once('.').map_or(field, |(above, _)| above);
    stderr.contains(field) || (!is_own && stderr.contains(above))
}

#[track_caller]
fn what_is_too_large_is_refused(lab: &Lab) {
    // Larger than an object of the mesh may be, smaller than what etcd takes.
    let object = large("oversize", 1_150_000);
    let file = lab.file("oversize.json", &object.to_string());
    let output = tried(lab, &["create", "-f", &file]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("more than 1048576"), "{output:?}");
}

/// A policy of so many bytes that means nothing.
fn large(name: &str, bytes: usize) -> Value {
    const VALUE: usize = 200;
    let values: Vec<String> = (0..bytes / VALUE).map(|n| format!("{n:0>0$}", VALUE - 3)).collect();
    let when = json!([{"key": "source.colour", "values": values}]);
    security("AuthorizationPolicy", &format!("shop/{name}"), &json!({"rules": [{"when": when}]}))
}

#[track_caller]
fn valid_siblings_pass(lab: &Lab) {
    let policy = |name: &str, spec: Value| security("AuthorizationPolicy", &format!("shop/{name}"), &spec);
    let right = json!({"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]});
    let items =
        [policy("first", right.clone()), policy("wrong", json!({"action": "DENY"})), policy("last", right)];
    let output = tried(lab, &["apply", "-f", &lab.file("siblings.json", &list(&items))]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("spec.rules"), "{output:?}");
    let stored = kubectl(lab, &["get", "authorizationpolicies", "-n", "shop", "-o", "name"]);
    let stored: Vec<&str> = stored.lines().filter_map(|line| Some(line.rsplit_once('/')?.1)).collect();
    assert_eq!(stored, ["first", "last"], "what was stored");
    let _ = kubectl(lab, &["delete", "authorizationpolicies", "-n", "shop", "--all"]);
}

/// Has objects stored that nobody can read, while no control plane is there to be asked.
#[track_caller]
fn slip_past(lab: &Lab) {
    let _ = lab.lab(&["stop", "istiod"]);
    let bad = |n: usize| {
        let key = format!("shop/bad-{n:03}");
        security("AuthorizationPolicy", &key, &json!({"action": "DENY"}))
    };
    let mut items: Vec<Value> = (0..BAD).map(bad).collect();
    // Closed: nothing passes unread.
    let one = lab.file("one.json", &items[0].to_string());
    let output = tried(lab, &["create", "-f", &one]);
    assert_eq!(output.code, Some(1), "it was stored unread: {output:?}");
    assert!(output.stderr.contains("failed calling webhook"), "{output:?}");
    // Somebody helps himself.
    let open = r#"[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]"#;
    let _ = kubectl(lab, &["patch", CONFIGURATION, "--type=json", "-p", open]);
    items.extend((0..LARGE).map(|n| large(&format!("large-{n}"), 100_000)));
    let file = lab.file("bad.json", &list(&items));
    // The API server takes a moment to see that it needs to ask nobody.
    wait_until("the API server goes on without an answer", SETTLED, || {
        tried(lab, &["create", "--dry-run=server", "-f", &one]).code == Some(0)
    });
    drop(tried(lab, &["create", "-f", &file]).ok());
    let _ = lab.lab(&["start", "istiod"]);
}

/// Whether the status of a policy in shop says that it is not in force, and names the field.
fn is_told(lab: &Lab, name: &str, field: &str) -> bool {
    let output = kubectl(lab, &["get", "authorizationpolicy", name, "-n", "shop", "-o", "json"]);
    let object: Value = serde_json::from_str(&output).expect("JSON");
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| {
        one["type"] == "Accepted"
            && one["status"] == "False"
            && one["message"].as_str().is_some_and(|words| words.contains(field))
    })
}

/// Whether a namespace's caller reaches its server.
fn serves(lab: &Lab, namespace: &str, name: &str) -> bool {
    let target = lab.target(&format!("{namespace}/{name}"), 4, PORT);
    lab.call(&format!("{namespace}/caller"), &target, &["--connections", "1"])["ok"] == true
}

/// From the beginning of `kubectl apply` of a policy in bank to its enforcement: the median of several.
#[track_caller]
fn pushed(lab: &Lab, word: &str) -> Duration {
    let spec = json!({"selector": {"matchLabels": {"app": "vault"}}, "action": "DENY", "rules": [{}]});
    let mut took = Vec::new();
    for turn in 0..if soak() { 9 } else { 3 } {
        wait_until("bank is served", SETTLED, || serves(lab, "bank", "vault"));
        let name = format!("{word}-{turn}");
        let policy = security("AuthorizationPolicy", &format!("bank/{name}"), &spec);
        let file = lab.file("deny.json", &policy.to_string());
        let begun = clock::monotonic();
        let _ = kubectl(lab, &["apply", "-f", &file]);
        wait_until("the policy is enforced", SETTLED, || !serves(lab, "bank", "vault"));
        took.push(clock::monotonic() - begun);
        let _ = kubectl(lab, &["delete", "authorizationpolicy", &name, "-n", "bank"]);
    }
    wait_until("bank is served again", SETTLED, || serves(lab, "bank", "vault"));
    took.sort();
    took[took.len() / 2]
}
