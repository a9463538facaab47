//! Rows 2 and 3: the tables of routes, policies and tokens through a lab with the real waypoint.
//!
//! The groups of a table are in force side by side, each on services of its own, so that one `lab apply` is enough for
//! all of them. Every row is either run or named with the reason why it is not; how many, the test demands.

use std::collections::BTreeSet;
use std::time::Duration;

use ambit_tests::lab::{Lab, http_peer};
use serde_json::{Value, json};

use super::shop::service;
use crate::cast::{account, namespace, split};

mod authorization;
mod keys;
mod outcome;
mod raw;
mod refusals;
mod rename;
mod routes;
mod tokens;

/// Longest time for the rows that are sent in one go.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be told at the end: what went wrong, what was not run and why, and how many rows ran.
#[derive(Debug, Default)]
struct Report {
    wrong: Vec<String>,
    not_run: Vec<String>,
    run: usize,
}

impl Report {
    /// A row that was run, with what was not as expected.
    fn ran(&mut self, row: &str, problems: Vec<String>) {
        self.run += 1;
        self.wrong.extend(problems.into_iter().map(|problem| format!("{row}: {problem}")));
    }

    /// A row that cannot be run, and why.
    fn left_out(&mut self, row: &str, why: &str) {
        self.not_run.push(format!("{row}: {why}"));
    }

    /// Tells what was not run, and fails for what went wrong or if less of the rows ran than so many percent.
    #[track_caller]
    fn end(&self, table: &str, least: usize) {
        println!("{table}: {} rows run, {} not:", self.run, self.not_run.len());
        self.not_run.iter().for_each(|line| println!("  not run: {line}"));
        assert!(self.wrong.is_empty(), "{table}, {} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        let all = self.run + self.not_run.len();
        assert!(self.run * 100 >= least * all, "{table}: only {} of {all} rows run", self.run);
    }
}

/// Sends requests (`http-peer rows`) from a pod; what was seen of each, in their order.
#[track_caller]
fn send(lab: &Lab, pod: &str, requests: &[Value], concurrency: usize) -> Vec<Value> {
    if requests.is_empty() {
        return Vec::new();
    }
    let name = format!("rows-{}.json", pod.replace('/', "-"));
    let file = lab.file(&name, &Value::from(requests.to_vec()).to_string());
    let (peer, concurrency) = (http_peer(), concurrency.to_string());
    let command = [&*peer, "rows", "--file", &file, "--concurrency", &concurrency];
    let told = lab.spawn(pod, &command).finish(PATIENCE).ok();
    let seen: Vec<Value> =
        serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e} in what http-peer told: {told}"));
    assert_eq!(seen.len(), requests.len(), "answers and requests");
    seen
}

/// Service accounts (`NAMESPACE/NAME`) with their namespaces, and a pod of each that runs nothing.
fn clients<'k>(keys: impl Iterator<Item = &'k str> + Clone) -> Vec<Value> {
    let spaces: BTreeSet<&str> = keys.clone().map(|key| split(key).0).collect();
    let namespaces = spaces.into_iter().map(|space| namespace(space, true));
    let members = keys.flat_map(|key| {
        let mut pod = crate::cast::pod(&pod_of(key), "node1", &[]);
        pod["spec"]["serviceAccountName"] = json!(split(key).1);
        [account(key), pod]
    });
    namespaces.chain(members).collect()
}

/// The pod of an account (`NAMESPACE/NAME`): accounts may have dots, and further pods the same names.
fn pod_of(account: &str) -> String {
    let (space, name) = split(account);
    format!("{space}/of-{}", name.replace('.', "-"))
}

/// A pod of `http-peer` that listens on ports; its name is told in `x-peer`.
fn application(key: &str, node: &str, ports: &[u16]) -> Value {
    let mut command = vec![http_peer(), "serve".to_owned(), "--sniff".to_owned()];
    command.extend(["--name".to_owned(), key.replace('/', ".")]);
    command.extend(ports.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut pod = crate::cast::pod(key, node, &words);
    let last = ports.iter().max().copied().unwrap_or_default();
    let listens = format!("ss -Hltn | grep -q ':{last} '");
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["sh", "-c", listens]}, "periodSeconds": 1});
    pod
}

/// A service of ports by number, name and where they lead to, in front of pods with an `app` label.
fn service_of(key: &str, app: &str, ports: &[(u16, &str, u16)]) -> Value {
    let mut object = service(key, &json!({"app": app}), 0, 0, "");
    let port =
        |(port, name, target): &(u16, &str, u16)| json!({"port": port, "name": name, "targetPort": target});
    object["spec"]["ports"] = ports.iter().map(port).collect();
    object
}

/// The waypoint of a namespace, which serves every namespace's services.
fn gateway(space: &str) -> Value {
    let mut gateway = super::shop::gateway();
    gateway["metadata"]["namespace"] = json!(space);
    gateway["spec"]["listeners"][0]["allowedRoutes"] = json!({"namespaces": {"from": "All"}});
    gateway
}

/// Binds a service to a namespace's waypoint.
fn bound(mut object: Value, space: &str) -> Value {
    object["metadata"]["labels"] =
        json!({"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": space});
    object
}

/// The text of a mapping's member; empty without one.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}
