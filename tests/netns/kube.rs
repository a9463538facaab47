//! The lab over a real API server: what a user of a cluster does with kubectl, and what the mesh makes of it.
//!
//! Level `kube` of `make test`. The rows of the mesh that hold over a folder are run again there as well, by their own
//! tests with `AMBIT_LAB_SOURCE=kube`; what is here is about the cluster itself.

use std::time::Duration;

use ambit_tests::lab::Lab;
use serde_json::{Value, json};

mod admission;
mod basics;
mod cli;
mod enrol;
mod lifecycle;
mod outages;
mod rights;
mod rotation;
mod tokens;
mod waypoints;

/// Brings a namespace into the mesh.
const LABEL: &str = "istio.io/dataplane-mode";
/// How long the cluster's controllers and the lab's kubelets may take together.
const SETTLED: Duration = Duration::from_secs(30);

/// A pod as a user of a cluster writes it: an image, no node.
fn pod(name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    })
}

/// The container with an image, which the API server asks for and the lab does not use.
fn with_image(mut container: Value) -> Value {
    container["image"] = json!("example.com/shop/app:1");
    container
}

/// Runs kubectl; its standard output.
#[track_caller]
fn kubectl(lab: &Lab, args: &[&str]) -> String {
    lab.lab(&[&["kubectl"][..], args].concat())
}

/// Waits until kubectl says of objects that they are so.
#[track_caller]
fn wait_for(lab: &Lab, condition: &str, objects: &[&str]) {
    let until = ["wait", "-n", "shop", "--timeout=30s", condition];
    let _ = kubectl(lab, &[&until[..], objects].concat());
}

/// Writes objects as one list; the file.
fn write(lab: &Lab, objects: &[Value]) -> String {
    let items = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    lab.file("shop.json", &items.to_string())
}
