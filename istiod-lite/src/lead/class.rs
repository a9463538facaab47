//! The GatewayClass of waypoints: made if it is missing, and told that it is ours.

use std::time::Duration;

use ambit_control::input::Kind;
use ambit_control::status::{ACCEPTED, Condition, Report};
use ambit_runtime::clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::api::{ApiError, At, Resource};
use super::status::{carry_out, render};
use super::waypoint::{CLASS, CONTROLLER};
use super::{Lead, chain, rest, stamp};

/// Time between two looks while all is well, and while it is not.
const LOOK: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Runs until it is dropped.
pub(super) async fn run(lead: &Lead<'_>, mut changed: watch::Receiver<u64>) {
    // What was said last, so that it is said once.
    let mut said = String::new();
    let mut look = clock::monotonic();
    loop {
        changed.borrow_and_update();
        let is_there = lead.world.index().class_controller(CLASS).is_some();
        if clock::monotonic() >= look {
            let pause = match ensure(lead).await {
                Ok(()) => {
                    said.clear();
                    LOOK
                }
                // Somebody has to install the Gateway API first; it need not be us who tells.
                Err(Fault::Api(ApiError::NotServed { kind, version })) => {
                    debug!(kind, version, "not served; there can be no waypoints yet");
                    LOOK_AGAIN
                }
                Err(fault) => {
                    let text = fault.text();
                    if said != text {
                        warn!(class = CLASS, error = %text, "the class of waypoints is not in order");
                        said = text;
                    }
                    LOOK_AGAIN
                }
            };
            look = clock::monotonic() + pause;
        }
        rest(&mut changed, look).await;
        if is_there && lead.world.index().class_controller(CLASS).is_none() {
            look = clock::monotonic();
        }
    }
}

/// Why the class is not in order.
enum Fault {
    Api(ApiError),
    /// It is somebody else's.
    Foreign(String),
}

impl Fault {
    fn text(&self) -> String {
        match self {
            Self::Api(error) => chain(error),
            Self::Foreign(controller) => format!(
                "its controller is {controller}, not {CONTROLLER}: its Gateways are left alone; remove that class to \
                 have waypoints"
            ),
        }
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// The object.
fn class() -> Value {
    json!({
        "apiVersion": Resource::GATEWAY_CLASS.version, "kind": Resource::GATEWAY_CLASS.kind,
        "metadata": {"name": CLASS, "labels": {"app.kubernetes.io/managed-by": "ambit-istiod"}},
        "spec": {"controllerName": CONTROLLER, "description": "Waypoints of the mesh: proxies for HTTP"},
    })
}

async fn ensure(lead: &Lead<'_>) -> Result<(), Fault> {
    let at = At { resource: Resource::GATEWAY_CLASS, namespace: "", name: CLASS };
    let live = match lead.server.get(at).await? {
        Some(live) => live,
        None => {
            let made = lead.server.create(at, &class()).await?;
            info!(class = CLASS, "made the class of waypoints");
            made
        }
    };
    let controller = live.pointer("/spec/controllerName").and_then(Value::as_str).unwrap_or_default();
    if controller != CONTROLLER {
        return Err(Fault::Foreign(controller.to_owned()));
    }
    let accepted = Condition {
        kind: ACCEPTED,
        holds: true,
        reason: "Accepted",
        message: "Handled by Istio controller".to_owned(),
    };
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    let report = Report { generation, conditions: vec![accepted], parents: Vec::new() };
    match render::writing(Kind::GatewayClass, &live, Some(&report), &stamp()) {
        Some(writing) => Ok(carry_out(lead, at, &live, writing).await?),
        None => Ok(()),
    }
}
