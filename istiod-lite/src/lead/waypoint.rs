//! Makes waypoints: a Gateway of their class becomes a Deployment, a Service and what belongs to them, and is told how
//! that went.
//!
//! What is made has the Gateway as its owner, so that the cluster removes it with the Gateway; what is left all the same
//! is removed here, once the API server itself says that the Gateway is gone. An object of the same name that was not
//! made here is never touched: the Gateway says that it is in the way.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_control::Name;
use ambit_control::index::Health;
use ambit_control::input::{Gateway, Labels};
use ambit_control::status::{ACCEPTED, Report};
use ambit_runtime::clock;
use ambit_types::Str;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::api::{ApiError, At, MANAGER, Resource, encoded};
use super::ledger::Ledger;
use super::status::{carry_out, render};
use super::{Lead, PARALLEL, TURN, chain, rest, stamp, told};

pub mod objects;
pub mod standing;
mod sweep;
#[cfg(test)]
mod tests;

use objects::{GATEWAY_LABEL, MANAGED, MANAGED_LABEL};
use standing::{Facts, Outcome};

/// The class of waypoints.
pub const CLASS: &str = "istio-waypoint";
/// Who answers for that class.
pub const CONTROLLER: &str = "istio.io/mesh-controller";

/// What a waypoint can be made of.
const KINDS: [Resource; 5] =
    [Resource::ACCOUNT, Resource::SERVICE, Resource::DEPLOYMENT, Resource::SCALER, Resource::BUDGET];
/// Time between two looks at what was made.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the cluster gets to remove what belonged to a Gateway that is gone.
const COLLECTION: Duration = Duration::from_secs(10);
/// Looks after which every Gateway's status is read again.
const SWEEPS_A_LOOK: u32 = 10;
/// Most faults that one message lists.
const LISTED_MAX: usize = 3;

/// An object of a waypoint.
type Piece = (Resource, Name);

/// What is known of waypoints and what was made for them.
#[derive(Debug, Default)]
struct State {
    /// What is made, by Gateway.
    making: Ledger<Name, Arc<Gateway>>,
    /// What Gateways are told, without times.
    telling: Ledger<Name, Arc<Value>>,
    outcomes: BTreeMap<Name, Outcome>,
    /// What is there and was made here, with its generation.
    held: BTreeMap<Piece, i64>,
    /// Waypoints whose Service was seen.
    served: BTreeSet<Name>,
}

/// A waypoint as the mesh has it now.
struct Seen {
    gateway: Arc<Gateway>,
    health: Health,
    report: Option<Arc<Report>>,
}

/// Runs until it is dropped.
pub(super) async fn run(lead: &Lead<'_>, mut changed: watch::Receiver<u64>) {
    let mut state = State::default();
    let (mut look, mut sweeps) = (clock::monotonic(), 0_u32);
    loop {
        changed.borrow_and_update();
        let seen = see(lead);
        state.want(&seen);
        if clock::monotonic() >= look {
            sweep::sweep(lead, &mut state, &seen).await;
            look = clock::monotonic() + SWEEP;
            sweeps = sweeps.wrapping_add(1);
            if sweeps.is_multiple_of(SWEEPS_A_LOOK) {
                seen.keys().cloned().for_each(|name| state.telling.doubt(name));
            }
        }
        let is_full = state.make(lead, &mut look).await;
        if !state.tell(lead, &seen).await && !is_full {
            let next = [state.making.next(), state.telling.next(), Some(look)].into_iter().flatten().min();
            rest(&mut changed, next.unwrap_or(look)).await;
        }
    }
}

fn see(lead: &Lead<'_>) -> BTreeMap<Name, Seen> {
    let index = lead.world.index();
    let seen = |gateway: &Gateway| {
        let name = gateway.name.clone();
        let key = ambit_control::input::Key::new(ambit_control::input::Kind::Gateway, name.clone());
        let report = index.reports().get(&key).cloned();
        (
            name.clone(),
            Seen { gateway: Arc::new(gateway.clone()), health: index.waypoint_health(&name), report },
        )
    };
    index.waypoint_gateways().map(seen).collect()
}

impl Seen {
    /// Whether something is made for it: it is accepted, and brings no addresses of its own.
    fn is_made(&self) -> bool {
        let conditions = self.report.iter().flat_map(|report| &report.conditions);
        let is_accepted = !conditions.into_iter().any(|one| one.kind == ACCEPTED && !one.holds);
        is_accepted && !objects::is_unmanaged(&self.gateway)
    }

    /// The Gateway as far as it matters to what is made.
    fn recipe(&self) -> Arc<Gateway> {
        let gateway = Gateway::clone(&self.gateway);
        Arc::new(Gateway { generation: 0, labels: Labels::new(), has_address: false, ..gateway })
    }
}

impl State {
    fn want(&mut self, seen: &BTreeMap<Name, Seen>) {
        let made = seen.iter().filter(|(_, one)| one.is_made());
        self.making.want(made.map(|(name, one)| (name.clone(), one.recipe())).collect());
        self.outcomes.retain(|name, _| seen.contains_key(name));
        self.served.retain(|name| seen.contains_key(name));
        for (name, one) in seen.iter().filter(|(_, one)| one.is_made()) {
            if one.health.has_service {
                self.served.insert(name.clone());
            } else if self.served.remove(name) {
                // Somebody removed it.
                self.held.remove(&(Resource::SERVICE, name.clone()));
                self.making.doubt(name.clone());
            }
        }
    }

    /// Makes what is due; returns whether more may be. What has to go is left to the cluster first.
    async fn make(&mut self, lead: &Lead<'_>, look: &mut Instant) -> bool {
        let due = self.making.due(clock::monotonic(), TURN);
        let is_full = due.len() == TURN;
        let held = &self.held;
        let made = due.into_iter().map(|(name, gateway)| async move {
            let made = match &gateway {
                Some(gateway) => Some(make(lead, gateway, held).await),
                None => None,
            };
            (name, gateway, made)
        });
        let made: Vec<_> = futures_util::stream::iter(made).buffer_unordered(PARALLEL).collect().await;
        for (name, gateway, made) in made {
            let Some(made) = made else {
                *look = (*look).min(clock::monotonic() + COLLECTION);
                self.making.done(&name, None);
                continue;
            };
            for (piece, generation) in made.pieces {
                match generation {
                    Some(generation) => self.held.insert(piece, generation),
                    None => self.held.remove(&piece),
                };
            }
            match &made.outcome {
                Outcome::Made | Outcome::Refused(_) => self.making.done(&name, gateway),
                Outcome::Failed(message) => self.failed(&name, true, message),
                Outcome::Waiting(message) => self.failed(&name, false, message),
            }
            self.outcomes.insert(name, made.outcome);
        }
        is_full
    }

    fn failed(&mut self, name: &Name, is_hopeless: bool, message: &str) {
        if self.making.failed(name, clock::monotonic(), is_hopeless) <= 1 {
            warn!(gateway = %name, error = message, "a waypoint cannot be made; it is tried again");
        }
    }

    /// Writes the status of Gateways; returns whether more may be.
    async fn tell(&mut self, lead: &Lead<'_>, seen: &BTreeMap<Name, Seen>) -> bool {
        let statuses = seen.iter().filter_map(|(name, one)| {
            let outcome = self.outcomes.get(name);
            // Until it is known how making goes, what was said before stays.
            if outcome.is_none() && one.is_made() {
                return None;
            }
            let facts = Facts {
                gateway: &one.gateway,
                report: one.report.as_deref(),
                health: &one.health,
                outcome,
                domain: &lead.settings.cluster_domain,
            };
            Some((name.clone(), Arc::new(standing::status(facts))))
        });
        let statuses = statuses.collect();
        self.telling.want(statuses);
        let due = self.telling.due(clock::monotonic(), TURN);
        let is_full = due.len() == TURN;
        let told_all = due.into_iter().map(|(name, status)| async move {
            let result = match &status {
                Some(status) => tell(lead, &name, status).await,
                None => Ok(()),
            };
            (name, status, result)
        });
        let mut results = futures_util::stream::iter(told_all).buffer_unordered(PARALLEL);
        while let Some((name, status, result)) = results.next().await {
            match result {
                Ok(()) | Err(ApiError::Gone | ApiError::Ending) => self.telling.done(&name, status),
                Err(error) => {
                    let failures = self.telling.failed(&name, clock::monotonic(), error.is_hopeless());
                    told(&format_args!("Gateway {name}"), failures, &error);
                }
            }
        }
        is_full
    }
}

async fn tell(lead: &Lead<'_>, name: &Name, status: &Value) -> Result<(), ApiError> {
    let at = At { resource: Resource::GATEWAY, namespace: &name.namespace, name: &name.name };
    let Some(live) = lead.server.get(at).await? else { return Ok(()) };
    match render::of_gateway(&live, status, &stamp()) {
        Some(writing) => carry_out(lead, at, &live, writing).await,
        None => Ok(()),
    }
}

/// What became of one waypoint.
struct Made {
    outcome: Outcome,
    /// Objects that are there now, with their generations, and those that are not any more.
    pieces: Vec<(Piece, Option<i64>)>,
}

async fn make(lead: &Lead<'_>, gateway: &Gateway, held: &BTreeMap<Piece, i64>) -> Made {
    let refused = |outcome| Made { outcome, pieces: Vec::new() };
    let Some(settings) = &lead.settings.waypoints else {
        let words = "istiod-lite was not told which image waypoints have; set --waypoint-image";
        return refused(Outcome::Failed(words.to_owned()));
    };
    let objects = match objects::made_of(gateway, settings) {
        Ok(objects) => objects,
        Err(words) => return refused(Outcome::Refused(words)),
    };
    let name = &gateway.name;
    let (mut pieces, mut faults) = (Vec::new(), Vec::new());
    let mut wanted = BTreeSet::new();
    for object in &objects {
        let Some(resource) = resource_of(object) else { continue };
        wanted.insert(resource);
        let at = At { resource, namespace: &name.namespace, name: &name.name };
        match put(lead, at, (object, settings), held.contains_key(&(resource, name.clone()))).await {
            Ok(generation) => pieces.push(((resource, name.clone()), Some(generation))),
            Err(fault) => faults.push((resource, fault)),
        }
    }
    for resource in KINDS.into_iter().filter(|kind| !wanted.contains(kind)) {
        if !held.contains_key(&(resource, name.clone())) {
            continue;
        }
        let at = At { resource, namespace: &name.namespace, name: &name.name };
        match remove(lead, at).await {
            Ok(()) => pieces.push(((resource, name.clone()), None)),
            Err(error) => faults.push((resource, Fault::Api(error))),
        }
    }
    // Writing what is there already is no news.
    if faults.is_empty() && pieces.iter().any(|(piece, generation)| held.get(piece).copied() != *generation) {
        info!(gateway = %name, objects = objects.len(), "made a waypoint");
    }
    Made { outcome: outcome(name, &faults), pieces }
}

/// Why an object of a waypoint is not as it should be.
enum Fault {
    Api(ApiError),
    /// It is there, and somebody else's.
    Foreign,
}

fn outcome(name: &Name, faults: &[(Resource, Fault)]) -> Outcome {
    if faults.is_empty() {
        return Outcome::Made;
    }
    let words = |(resource, fault): &(Resource, Fault)| match fault {
        Fault::Api(error) => format!("{} {name}: {}", resource.kind, chain(error)),
        Fault::Foreign => format!(
            "{} {name} exists and was not made for this waypoint; rename one of the two, or remove it",
            resource.kind
        ),
    };
    let mut text = faults.iter().take(LISTED_MAX).map(words).collect::<Vec<_>>().join("; ");
    if faults.len() > LISTED_MAX {
        text.push_str(&format!("; and {} more", faults.len() - LISTED_MAX));
    }
    let is_hopeless = |fault: &Fault| match fault {
        Fault::Api(error) => error.is_hopeless(),
        Fault::Foreign => true,
    };
    match faults.iter().any(|(_, fault)| is_hopeless(fault)) {
        true => Outcome::Failed(text),
        false => Outcome::Waiting(text),
    }
}

fn resource_of(object: &Value) -> Option<Resource> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    KINDS.into_iter().find(|resource| resource.kind == kind)
}

/// Writes an object, unless one is there that was not made here; returns its generation.
async fn put(
    lead: &Lead<'_>,
    at: At<'_>,
    (object, settings): (&Value, &objects::Settings),
    is_held: bool,
) -> Result<i64, Fault> {
    if !is_held {
        let live = lead.server.get(at).await.map_err(Fault::Api)?;
        if live.is_some_and(|live| waypoint_of(&live) != Some(at.name)) {
            return Err(Fault::Foreign);
        }
    }
    let object = with_pods(lead, at, object, settings).await.map_err(Fault::Api)?;
    let live = lead.server.apply(at, &object).await.map_err(Fault::Api)?;
    metrics::counter!("ambit_lead_writes_total", "kind" => at.resource.kind).increment(1);
    Ok(generation(&live))
}

/// The object; a Deployment whose pods a scaler has keeps those it has until the scaler counts them.
async fn with_pods<'o>(
    lead: &Lead<'_>,
    at: At<'_>,
    object: &'o Value,
    settings: &objects::Settings,
) -> Result<Cow<'o, Value>, ApiError> {
    if at.resource != Resource::DEPLOYMENT || object.pointer("/spec/replicas").is_some() {
        return Ok(Cow::Borrowed(object));
    }
    let live = lead.server.get(at).await?;
    let Some(number) = live.and_then(|live| objects::kept_replicas(&live, MANAGER, settings)) else {
        return Ok(Cow::Borrowed(object));
    };
    let mut object = object.clone();
    object["spec"]["replicas"] = json!(number);
    Ok(Cow::Owned(object))
}

/// Removes an object that was made here.
async fn remove(lead: &Lead<'_>, at: At<'_>) -> Result<(), ApiError> {
    let Some(live) = lead.server.get(at).await? else { return Ok(()) };
    let uid = live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if waypoint_of(&live).is_none() || uid.is_empty() {
        return Ok(());
    }
    lead.server.delete(at, uid).await
}

/// The name of the waypoint that an object was made for.
fn waypoint_of(object: &Value) -> Option<&str> {
    let labels = object.pointer("/metadata/labels")?;
    let is_managed = labels.get(MANAGED_LABEL).and_then(Value::as_str) == Some(MANAGED);
    labels.get(GATEWAY_LABEL).and_then(Value::as_str).filter(|_| is_managed)
}

fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Selects what is made here.
fn managed() -> String {
    format!("labelSelector={}", encoded(&format!("{MANAGED_LABEL}={MANAGED}")))
}

/// The name of an object.
fn name_of(object: &Value) -> Name {
    Name::new(Str::from(text(object, "/metadata/namespace")), Str::from(text(object, "/metadata/name")))
}
