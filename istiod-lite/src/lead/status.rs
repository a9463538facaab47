//! Writes how objects stand into their status: routes, policies, services that ask for a waypoint, service entries.
//!
//! Only differences are written. A new leader reads what every object says, page by page, and so takes back what is not
//! true any more, whoever led when it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ambit_control::Name;
use ambit_control::input::{Key, Kind};
use ambit_control::status::Report;
use ambit_manifest::{Kind as Written, Problem};
use ambit_runtime::clock;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::api::{ApiError, At, Resource, Server};
use super::events::Notice;
use super::ledger::Ledger;
use super::{Lead, PARALLEL, TURN, chain, rest, stamp, told};

mod refusals;
pub mod render;

use refusals::Refusals;

/// Time between two looks at everything.
const LOOK: Duration = Duration::from_secs(600);
/// The same while a kind cannot be listed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Kinds with a status of ours, gateways aside.
const KINDS: &[(Kind, Written)] = &[
    (Kind::Service, Written::Service),
    (Kind::ServiceEntry, Written::ServiceEntry),
    (Kind::AuthorizationPolicy, Written::AuthorizationPolicy),
    (Kind::PeerAuthentication, Written::PeerAuthentication),
    (Kind::RequestAuthentication, Written::RequestAuthentication),
    (Kind::HttpRoute, Written::HTTPRoute),
    (Kind::GrpcRoute, Written::GRPCRoute),
    (Kind::TlsRoute, Written::TLSRoute),
    (Kind::TcpRoute, Written::TCPRoute),
    (Kind::TrafficPolicy, Written::TrafficPolicy),
    (Kind::EgressPolicy, Written::EgressPolicy),
    (Kind::VirtualService, Written::VirtualService),
];

/// Under which version each kind is served, as far as it is known.
type Versions = BTreeMap<Kind, Resource>;

/// Runs until it is dropped.
pub(super) async fn run(
    lead: &Lead<'_>,
    mut changed: watch::Receiver<u64>,
    problems: watch::Receiver<Arc<[Problem]>>,
) {
    let mut refusals = Refusals::default();
    let mut ledger: Ledger<Key, Arc<Report>> = Ledger::default();
    let (mut versions, mut look) = (Versions::new(), clock::monotonic());
    loop {
        changed.borrow_and_update();
        let mut wanted = lead.world.index().conditions();
        let refused = problems.borrow().clone();
        refusals::add(&mut wanted, &refused);
        ledger.want(wanted);
        refusals.tell(lead, &refused).await;
        if clock::monotonic() >= look {
            let is_whole = survey(lead.server, &mut ledger, &mut versions).await;
            look = clock::monotonic() + if is_whole { LOOK } else { LOOK_AGAIN };
        }
        if !turn(lead, &mut ledger, &versions).await {
            rest(&mut changed, ledger.next().map_or(look, |next| next.min(look))).await;
        }
    }
}

/// Writes what is due; returns whether more may be.
async fn turn(lead: &Lead<'_>, ledger: &mut Ledger<Key, Arc<Report>>, versions: &Versions) -> bool {
    let due = ledger.due(clock::monotonic(), TURN);
    let is_full = due.len() == TURN;
    let written = due.into_iter().map(|(key, report)| async move {
        let result = write(lead, versions, &key, report.as_deref()).await;
        (key, report, result)
    });
    let mut written = futures_util::stream::iter(written).buffer_unordered(PARALLEL);
    while let Some((key, report, result)) = written.next().await {
        match result {
            Ok(()) | Err(ApiError::Gone | ApiError::Ending) => ledger.done(&key, report),
            Err(error) => {
                let failures = ledger.failed(&key, clock::monotonic(), error.is_hopeless());
                told(&key, failures, &error);
            }
        }
    }
    is_full
}

async fn write(
    lead: &Lead<'_>,
    versions: &Versions,
    key: &Key,
    report: Option<&Report>,
) -> Result<(), ApiError> {
    let Some(resource) = versions.get(&key.kind).copied().or_else(|| first_version(key.kind)) else {
        return Ok(());
    };
    let at = At { resource, namespace: &key.name.namespace, name: &key.name.name };
    let Some(live) = lead.server.get(at).await? else { return Ok(()) };
    let Some(writing) = render::writing(key.kind, &live, report, &stamp()) else { return Ok(()) };
    carry_out(lead, at, &live, writing).await
}

/// Writes a status and has Events written of what turned bad.
pub(super) async fn carry_out(
    lead: &Lead<'_>,
    at: At<'_>,
    live: &Value,
    writing: render::Writing,
) -> Result<(), ApiError> {
    let version = live.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let version = version.filter(|_| writing.is_bound_to_version);
    lead.server.apply_status(at, &writing.status, version).await?;
    metrics::counter!("ambit_lead_writes_total", "kind" => at.resource.kind).increment(1);
    debug!(object = %at, "wrote a status");
    for turned in writing.turned_bad {
        lead.notice(Notice::of(at, live, turned));
    }
    Ok(())
}

fn first_version(kind: Kind) -> Option<Resource> {
    let (_, written) = KINDS.iter().find(|(own, _)| *own == kind)?;
    written.api_versions().first().map(|version| resource(*written, version))
}

pub(super) fn resource(kind: Written, version: &'static str) -> Resource {
    Resource { version, kind: kind.as_str(), plural: kind.plural(), namespaced: kind.namespaced() }
}

/// Reads what every object says and marks what says something else than it should; returns whether all could be read.
async fn survey(server: &Server, ledger: &mut Ledger<Key, Arc<Report>>, versions: &mut Versions) -> bool {
    let (mut is_whole, now) = (true, stamp());
    for (kind, written) in KINDS {
        let known = versions.get(kind).map(|resource| resource.version);
        let candidates = known.into_iter().chain(written.api_versions().iter().copied());
        let mut found = Err(ApiError::Gone);
        for version in candidates {
            let resource = resource(*written, version);
            found = server.list(resource, "", |live| compare(ledger, *kind, live, &now)).await;
            match &found {
                Ok(()) => {
                    versions.insert(*kind, resource);
                    break;
                }
                Err(ApiError::NotServed { .. }) => {}
                Err(_) => break,
            }
        }
        match found {
            // Of a kind that nobody installed there are no objects.
            Ok(()) | Err(ApiError::NotServed { .. }) => {}
            Err(error) => {
                is_whole = false;
                warn!(kind = kind.as_str(), error = %chain(&error), "cannot look at the status of objects");
            }
        }
    }
    is_whole
}

fn compare(ledger: &mut Ledger<Key, Arc<Report>>, kind: Kind, live: &Value, now: &str) {
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let key = Key::new(kind, Name::new(text("/metadata/namespace"), text("/metadata/name")));
    let wanted = ledger.wanted_of(&key).cloned();
    if render::writing(kind, live, wanted.as_deref(), now).is_none() {
        ledger.done(&key, wanted);
    } else {
        ledger.doubt(key);
    }
}
