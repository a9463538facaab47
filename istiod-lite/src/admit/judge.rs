//! Whether an object may be stored: a function of the question and of the index.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ambit_control::index::{Around, Preview};
use ambit_control::input::Event;
use ambit_manifest::{Kind, Located, Problem, read_value};
use serde::Serialize;
use serde_json::Value;

use super::prune;
use super::review::{Operation, Request};
use crate::ingest;
use crate::world::World;

/// Largest object; etcd takes half as much again.
pub(super) const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Problems that a message spells out.
const LISTED_MAX: usize = 16;
/// Most warnings, and the longest in characters: what is longer the API server cuts.
const WARNINGS_MAX: usize = 16;
const WARNING_CHARS_MAX: usize = 256;
/// Longest text of one problem in characters; it may repeat what somebody wrote.
const WORDS_CHARS_MAX: usize = 512;
/// How often fields that are not known are taken away; one that is left then is refused.
const PRUNINGS_MAX: usize = 4;
/// How the message about such a field begins.
const UNKNOWN_FIELD: &str = "unknown field";
/// Controller of waypoints.
const CONTROLLER: &str = "istio.io/mesh-controller";
/// Label of a ConfigMap that is always refused, so that the API server can be seen to ask; and what it is told.
pub(super) const PROBE_LABEL: &str = "ambit.internal/webhook-probe";
pub(super) const PROBE_ANSWER: &str = "a probe is always refused: the webhook is asked and answers";
/// Labels and annotations of the mesh, by the domain of their keys.
const DOMAINS: &[&str] = &["istio.io/", "ambient.istio.io/", "networking.istio.io/", "ambit.internal/"];

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// His address; what the mesh has beside the object is told to API servers only. None is nobody's.
    pub address: Option<IpAddr>,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be stored.
    Allowed {
        /// What will not be as its author expects.
        warnings: Vec<String>,
    },
    /// It may not.
    Refused {
        /// Status code.
        code: u16,
        /// The same as Kubernetes calls it.
        reason: &'static str,
        /// For people.
        message: String,
        /// For programs.
        causes: Vec<Cause>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// Path of the field from the top of the object.
    pub field: String,
    /// What sort of mistake it is, as Kubernetes calls it.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
}

/// How far an object is our affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stake {
    /// It is for us.
    Whole,
    /// Others read it too, and may know more of it.
    Advice,
    /// Only its labels and annotations of the mesh.
    Labels,
    /// It is somebody else's.
    Nothing,
}

/// What was found in an object.
#[derive(Debug, Default)]
struct Findings {
    causes: BTreeSet<Cause>,
    warnings: Vec<String>,
}

/// Decides about one question.
pub fn judge(request: &Request, caller: Caller, world: &World) -> Verdict {
    let allowed = Verdict::Allowed { warnings: Vec::new() };
    if request.operation == Operation::Other || !request.sub_resource.is_empty() {
        return allowed;
    }
    if !request.object.is_object() {
        return refused(400, "BadRequest", "the question holds no object".to_owned(), BTreeSet::new());
    }
    // Whoever takes the last finalizer away must be able to.
    if !request.object["metadata"]["deletionTimestamp"].is_null() {
        return allowed;
    }
    let object = essence(&request.object);
    let bytes = object.to_string().len();
    let name = named(&object);
    if bytes > OBJECT_BYTES_MAX {
        let words = format!("{name} has {bytes} bytes, more than {OBJECT_BYTES_MAX}; divide it into several");
        return refused(413, "RequestEntityTooLarge", words, BTreeSet::new());
    }
    let mut found = examine(&object, caller, world);
    if !found.causes.is_empty() && request.old_object.is_object() {
        // What is wrong since long ago is no reason to refuse a change of something else.
        let before = examine(&essence(&request.old_object), Caller { address: None }, world).causes;
        let (old, new) = found.causes.into_iter().partition(|cause| before.contains(cause));
        found.causes = new;
        found
            .warnings
            .extend(BTreeSet::iter(&old).map(|one| format!("as before, {}: {}", one.field, one.message)));
    }
    if found.causes.is_empty() {
        return Verdict::Allowed { warnings: warnings(found.warnings) };
    }
    let message = message(&name, &object, &found.causes);
    refused(422, "Invalid", message, found.causes)
}

fn refused(code: u16, reason: &'static str, message: String, causes: BTreeSet<Cause>) -> Verdict {
    Verdict::Refused { code, reason, message, causes: causes.into_iter().collect() }
}

/// The object as its author wrote it: without what servers and controllers keep in it.
fn essence(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let generated = object["metadata"]["generateName"].as_str().map(|prefix| format!("{prefix}x"));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        // The name may be made after we were asked.
        if let Some(name) = generated
            && metadata.get("name").is_none_or(|name| name.as_str().unwrap_or_default().is_empty())
        {
            metadata.insert("name".to_owned(), Value::String(name));
        }
    }
    object
}

/// Reads an object as the folder source would, and looks what would become of it.
fn examine(object: &Value, caller: Caller, world: &World) -> Findings {
    let mut found = Findings::default();
    let stake = stake(object, world);
    if object["kind"] == "ConfigMap" && !object["metadata"]["labels"][PROBE_LABEL].is_null() {
        found.causes.insert(cause(format!("metadata.labels[{PROBE_LABEL}]"), PROBE_ANSWER));
    }
    if stake == Stake::Nothing {
        return found;
    }
    match read(object, &mut found.warnings) {
        Ok(located) => match ingest::put(&located) {
            Ok(Some(Event::Put(made))) => {
                let Preview { faults, notes } = preview(made, caller, world);
                found.causes.extend(faults.into_iter().map(|(field, words)| cause(field, &words)));
                found.warnings.extend(notes);
            }
            Ok(Some(Event::Remove(_)) | None) => {}
            Err(problems) => found.causes.extend(problems.into_iter().map(from_problem)),
        },
        Err(problems) => found.causes.extend(problems.into_iter().map(from_problem)),
    }
    match stake {
        Stake::Whole | Stake::Nothing => {}
        Stake::Advice => {
            let told = std::mem::take(&mut found.causes);
            found.warnings.extend(told.into_iter().map(|one| format!("{}: {}", one.field, one.message)));
        }
        // Everything else in it the API server knows better.
        Stake::Labels => found.causes.retain(|cause| is_of_mesh(&cause.field)),
    }
    found
}

fn preview(made: ambit_control::Object, caller: Caller, world: &World) -> Preview {
    let (around, may_know) = {
        let index = world.index();
        let may_know = caller.address.is_some_and(|address| index.is_api_server(address));
        let around = if may_know { index.around(&made) } else { Around::nothing(index.settings().clone()) };
        (around, may_know)
    };
    let mut preview = around.preview(made);
    if !may_know {
        // Without surroundings everything seems to be missing.
        preview.notes.clear();
    }
    preview
}

/// Reads an object; fields that are not known are taken away with a warning, as the API server would without one.
///
/// Not those of a policy of security: they may be the condition without which it says something else. Where the stored
/// object keeps such a field, nothing of it would be in force; so it is refused, in the same words.
fn read(object: &Value, warnings: &mut Vec<String>) -> Result<Located, Vec<Problem>> {
    let is_security = is_security(object);
    let is_kept = |field: &str| is_security && (field == "spec" || field.starts_with("spec."));
    let mut object = object.clone();
    for _ in 0..PRUNINGS_MAX {
        let problems = match read_value("admission", &object) {
            Ok(located) => return Ok(located),
            Err(problems) => problems,
        };
        let unknown = problems.iter().filter(|problem| problem.message.starts_with(UNKNOWN_FIELD));
        let unknown = unknown.filter(|problem| !is_kept(&problem.field));
        let mut is_less = false;
        for problem in unknown {
            if prune::remove(&mut object, &problem.field) {
                is_less = true;
                warnings.push(format!("{}: {}", problem.field, words(problem)));
            }
        }
        if !is_less {
            return Err(problems);
        }
    }
    read_value("admission", &object)
}

/// Whether an object is a policy of security: read from the API server, it is refused with a field that is not known.
fn is_security(object: &Value) -> bool {
    let kind = object["kind"].as_str().and_then(Kind::from_name);
    let security = [Kind::PeerAuthentication, Kind::AuthorizationPolicy, Kind::RequestAuthentication];
    kind.is_some_and(|kind| security.contains(&kind))
}

fn stake(object: &Value, world: &World) -> Stake {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().and_then(Kind::from_name);
    // A version that we do not read is a newer one's affair.
    let Some(kind) = kind.filter(|kind| kind.api_versions().contains(&version)) else {
        return Stake::Nothing;
    };
    let whole = |is_ours: bool| if is_ours { Stake::Whole } else { Stake::Nothing };
    match kind {
        Kind::PeerAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::TrafficPolicy
        | Kind::EgressPolicy => Stake::Whole,
        Kind::GatewayClass => whole(object["spec"]["controllerName"] == CONTROLLER),
        Kind::Gateway => {
            let class = object["spec"]["gatewayClassName"].as_str().unwrap_or_default();
            whole(world.index().is_class_of_waypoints(class))
        }
        Kind::HTTPRoute | Kind::GRPCRoute | Kind::TCPRoute | Kind::TLSRoute => {
            let parents = object["spec"]["parentRefs"].as_array();
            let is_ours = |parent: &Value| parent["kind"] == "Service" || parent["kind"] == "ServiceEntry";
            whole(parents.into_iter().flatten().any(is_ours))
        }
        Kind::VirtualService => {
            let gateways = object["spec"]["gateways"].as_array().map_or(&[][..], Vec::as_slice);
            whole(gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh"))
        }
        Kind::ReferenceGrant => Stake::Advice,
        Kind::Namespace | Kind::Service | Kind::Pod => Stake::Labels,
        Kind::Node
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Secret
        | Kind::EndpointSlice
        | Kind::NetworkPolicy
        | Kind::Deployment => Stake::Nothing,
    }
}

/// Whether a field is a label or annotation of the mesh.
fn is_of_mesh(field: &str) -> bool {
    let key = field.strip_prefix("metadata.labels[").or_else(|| field.strip_prefix("metadata.annotations["));
    key.is_some_and(|key| DOMAINS.iter().any(|domain| key.starts_with(domain)))
}

fn from_problem(problem: Problem) -> Cause {
    let text = words(&problem);
    cause(problem.field, &text)
}

fn words(problem: &Problem) -> String {
    match &problem.nearest {
        Some(nearest) => format!("{}, did you mean \"{nearest}\"?", problem.message),
        None => problem.message.clone(),
    }
}

fn cause(field: String, words: &str) -> Cause {
    let reason = if words.starts_with("the field is missing") || words.ends_with("is missing") {
        "FieldValueRequired"
    } else if words.contains("is not a valid value, valid are") {
        "FieldValueNotSupported"
    } else if words.ends_with("is given twice") {
        "FieldValueDuplicate"
    } else {
        "FieldValueInvalid"
    };
    Cause { field: plain(&field, WORDS_CHARS_MAX), reason, message: plain(words, WORDS_CHARS_MAX) }
}

/// `AuthorizationPolicy shop/orders`.
fn named(object: &Value) -> String {
    let text = |value: &Value| plain(value.as_str().unwrap_or_default(), WORDS_CHARS_MAX);
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    match metadata["namespace"].as_str() {
        Some(_) => format!("{kind} {}/{}", text(&metadata["namespace"]), text(&metadata["name"])),
        None => format!("{kind} {}", text(&metadata["name"])),
    }
}

fn message(name: &str, object: &Value, causes: &BTreeSet<Cause>) -> String {
    let plural = if causes.len() == 1 { "problem" } else { "problems" };
    let mut text = format!("{name} cannot be in force as written, {} {plural}:", causes.len());
    for Cause { field, reason, message } in causes.iter().take(LISTED_MAX) {
        let field = if field.is_empty() { "the object" } else { field };
        text.push_str(&format!("\n* {field}: {message} ({reason})"));
    }
    if causes.len() > LISTED_MAX {
        text.push_str(&format!("\n* and {} more", causes.len() - LISTED_MAX));
    }
    let kind = object["kind"].as_str().and_then(Kind::from_name).map_or("KIND", Kind::plural);
    text.push_str(&format!(
        "\nnext: put the fields right and apply again; `kubectl explain {kind}.spec --recursive` shows what there is"
    ));
    text
}

/// As many warnings as somebody reads, each as long as the API server passes on.
fn warnings(all: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<String> = all
        .iter()
        .map(|text| plain(text, WARNING_CHARS_MAX))
        .filter(|text| seen.insert(text.clone()))
        .take(WARNINGS_MAX)
        .collect();
    if seen.len() >= WARNINGS_MAX && all.len() > WARNINGS_MAX {
        kept.pop();
        kept.push("and more; see the status of the object".to_owned());
    }
    kept
}

/// The text without anything that a terminal would obey, cut where it is too long.
fn plain(text: &str, chars_max: usize) -> String {
    let is_longer = text.chars().nth(chars_max).is_some();
    let kept = if is_longer { chars_max.saturating_sub(1) } else { chars_max };
    let mut out: String =
        text.chars().take(kept).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if is_longer {
        out.push('…');
    }
    out
}
