//! The publisher's side of delta discovery: what one connection gets, in which order, and what it has answered.
//!
//! A connection works in cycles. A cycle takes the newest [`Resources`] as its goal and brings the client there in
//! three steps, each answered before the next is sent: new and changed policies; workloads and services; policies
//! that are gone. So a workload never names a policy that the client has not been given, and a policy is never
//! taken away while a workload names it. A refused policy does not hold the cycle up: the workload goes out, and
//! the client denies for want of the policy. Changes that come during a cycle wait for the next one and cost no
//! memory: the next goal is whatever is newest then. A change costs a connection that it does not concern a look at
//! what was touched, and no look at what it holds.
//!
//! What is too much for one response goes in parts, each answered before the next, if the client says that it takes
//! them ([`crate::parts`]).
//!
//! A waypoint has more kinds of resources, and more steps for the same reason; [`Connection::for_waypoint`] gives it
//! its own and nobody else's.
//!
//! What a client can make a stream keep is bounded ([`Limits`]) so that one that keeps to the protocol is never refused
//! each time it comes back. Of what it declares that is not published as much is answered as has room, then the stream
//! ends, and the next one begins with less. Who comes with more keys than are kept gets everything. Only keys that come
//! later, beyond the bound, end the stream, and names that are longer than a name can be.
//!
//! Whether the caller may open the stream is decided elsewhere.

mod changes;
mod entry;
mod history;
mod interest;
mod leads;
mod named;
mod plan;
mod refusal;
pub mod resources;
mod room;
mod shards;
mod subscription;
#[cfg(test)]
mod tests;
mod waypoint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use refusal::Rejection;
pub use resources::{Delta, Resources};
pub use waypoint::WaypointDelta;

use crate::kind::Kind;
use crate::names::shortened;
use crate::node::WaypointKey;
use crate::parts;
use crate::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use changes::{Changes, Content};
use named::NamedWatch;
use plan::{Plan, Role};
use refusal::{Refusal, Refused, refusals};
use room::Room;
use subscription::AddressWatch;

/// Longest type of a request that an error repeats, in bytes.
const TYPE_BYTES_MAX: usize = 256;

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest wait for the answer to a response; default 60 s. Then the stream is of no use and is closed.
    pub answer_timeout: Duration,
    /// How long workloads wait for the client to ask for policies, and what else it needs, too; default 1 s.
    pub policy_grace: Duration,
    /// Most names one client subscribes to on demand, most of them that wait for an answer and lead nowhere, and most
    /// declared ones that are not published; default 65536.
    pub names_max: usize,
    /// Most bytes of each of these, counting 64 with each name; default 8 MiB.
    pub names_bytes_max: usize,
    /// Largest response to a client that takes parts, in bytes; default 1 MiB. One resource that is larger goes alone.
    ///
    /// Bounds what a stream takes of memory while its client reads, and stays under the 4 MiB that gRPC receives where
    /// nothing else is set.
    pub response_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(60),
            policy_grace: Duration::from_secs(1),
            names_max: 65_536,
            names_bytes_max: 8 << 20,
            response_bytes_max: 1 << 20,
        }
    }
}

/// Why a stream is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A type that is not served here (invalid argument).
    #[error("type {type_url:?} is not served; {served}")]
    UnknownType {
        /// What was asked for.
        type_url: String,
        /// What is served to such a client, as the end of a sentence.
        served: String,
    },
    /// A name that is longer than any can be (invalid argument).
    #[error("a name of {bytes} bytes is longer than {max}")]
    LongName {
        /// Its length.
        bytes: usize,
        /// The bound, [`crate::names::NAME_BYTES_MAX`].
        max: usize,
    },
    /// Too many names (resource exhausted).
    #[error("more than {max} names subscribed on one stream, or {bytes_max} bytes of them")]
    TooManyNames {
        /// The bound.
        max: usize,
        /// The bound of their bytes.
        bytes_max: usize,
    },
    /// The client declared too much that is not published. All of it that has room was answered (resource exhausted).
    #[error(
        "of the names declared that are not published the first {max}, or {bytes_max} bytes, are answered; \
         open another stream for the others"
    )]
    TooManyDeclared {
        /// The bound.
        max: usize,
        /// The bound of their bytes.
        bytes_max: usize,
    },
    /// A response was not answered (deadline exceeded).
    #[error("no ACK or NACK for a response of type {kind} within {waited:?}")]
    NoAnswer {
        /// Its kind.
        kind: Kind,
        /// The bound.
        waited: Duration,
    },
}

#[derive(Debug)]
struct Cycle {
    goal: Arc<Resources>,
    /// What is left to do.
    plan: Plan,
    /// What is left to send of the step before.
    pending: Option<(Kind, Changes)>,
}

/// A response that waits for its answer.
#[derive(Debug)]
struct Outstanding {
    kind: Kind,
    nonce: String,
    deadline: Instant,
    /// Names of what it brings of workloads and services to a client that wants some.
    brings: BTreeSet<String>,
}

/// One client's stream, from its first request to its end.
#[derive(Debug)]
pub struct Connection {
    node_name: String,
    role: Role,
    limits: Limits,
    /// Whether the client takes responses in parts.
    takes_parts: bool,
    latest: Arc<Resources>,
    addresses: Option<AddressWatch>,
    /// Subscriptions to other kinds.
    named: BTreeMap<Kind, NamedWatch>,
    /// Until when workloads wait for those.
    policies_until: Option<Instant>,
    cycle: Option<Cycle>,
    outstanding: Option<Outstanding>,
    completed: Option<Arc<Resources>>,
    subscription_changed: bool,
    nonces: u64,
    refused: Refused,
    /// For what the client declares.
    room: Room,
}

impl Connection {
    /// A stream just opened by a client on the machine `node_name`.
    pub fn new(node_name: impl Into<String>, latest: Arc<Resources>, limits: Limits) -> Self {
        Self::with(node_name.into(), Role::Node, latest, limits)
    }

    /// A stream just opened by a replica of `waypoint` on the machine `node_name`.
    ///
    /// It gets what was published for that waypoint and nothing of another's, so make sure first that the caller is
    /// what it says ([`crate::node::Caller::waypoint`]).
    pub fn for_waypoint(
        node_name: impl Into<String>,
        waypoint: WaypointKey,
        latest: Arc<Resources>,
        limits: Limits,
    ) -> Self {
        Self::with(node_name.into(), Role::Waypoint(waypoint), latest, limits)
    }

    fn with(node_name: String, role: Role, latest: Arc<Resources>, limits: Limits) -> Self {
        Self {
            node_name,
            role,
            limits,
            takes_parts: false,
            latest,
            addresses: None,
            named: BTreeMap::new(),
            policies_until: None,
            cycle: None,
            outstanding: None,
            completed: None,
            subscription_changed: false,
            nonces: 0,
            refused: Refused::new(),
            room: Room::default(),
        }
    }

    /// A request arrived: the response to send, if any.
    ///
    /// # Errors
    /// [`StreamError`]: close the stream with it.
    pub fn handle_request(
        &mut self,
        request: DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<Option<DeltaDiscoveryResponse>, StreamError> {
        let Some(kind) = Kind::among(self.role.kinds(), &request.type_url) else {
            let type_url = shortened(&request.type_url, TYPE_BYTES_MAX);
            return Err(StreamError::UnknownType { type_url, served: self.role.served() });
        };
        room::check_names(&request)?;
        if !self.is_open(kind) {
            self.open(kind, request, now);
        } else {
            if !request.response_nonce.is_empty() {
                self.answer(kind, &request);
            }
            self.resubscribe(kind, &request);
        }
        let Limits { names_max: max, names_bytes_max: bytes_max, .. } = self.limits;
        if self.addresses.as_ref().is_some_and(|watch| !watch.has_room(&self.latest, &self.limits)) {
            return Err(StreamError::TooManyNames { max, bytes_max });
        }
        let response = self.advance(now);
        if response.is_none() && self.room.is_short() && self.is_at_rest() {
            return Err(StreamError::TooManyDeclared { max, bytes_max });
        }
        Ok(response)
    }

    /// The mesh changed: the response to send, if any.
    pub fn handle_change(&mut self, latest: Arc<Resources>, now: Instant) -> Option<DeltaDiscoveryResponse> {
        self.latest = latest;
        self.advance(now)
    }

    /// Time passed: the response to send, if any.
    ///
    /// # Errors
    /// [`StreamError::NoAnswer`]: close the stream with it.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<Option<DeltaDiscoveryResponse>, StreamError> {
        if let Some(outstanding) = self.outstanding.as_ref().filter(|waiting| waiting.deadline <= now) {
            let (kind, waited) = (outstanding.kind, self.limits.answer_timeout);
            return Err(StreamError::NoAnswer { kind, waited });
        }
        Ok(self.advance(now))
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.outstanding {
            Some(outstanding) => Some(outstanding.deadline),
            None => self.policies_until,
        }
    }

    /// The revision in force at the client, as far as it has answered.
    ///
    /// Revision N: the client subscribes to all its kinds and has answered, by ACK or NACK, everything that differs up
    /// to N. What it refused is in [`Self::rejections`] and is not in force. `None` until then.
    pub fn acked_revision(&self) -> Option<u64> {
        let all = self.role.kinds().iter().all(|kind| match kind {
            Kind::Address => self.addresses.as_ref().is_some_and(|watch| watch.answered),
            kind => self.named.get(kind).is_some_and(NamedWatch::is_answered),
        });
        self.completed.as_ref().filter(|_| all).map(|completed| completed.revision())
    }

    /// What the client refused and has not since accepted, or seen removed.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection> {
        self.refused.iter().map(|((kind, name), refusal)| Rejection {
            kind: *kind,
            name: name.clone(),
            reason: refusal.reason.clone(),
        })
    }

    /// Whether the client came with more names than are kept, so that it gets everything.
    pub fn has_too_many_names(&self) -> bool {
        self.addresses.as_ref().is_some_and(AddressWatch::is_beyond)
    }

    /// Whether all that the client has subscribed to is answered, and by the client too.
    fn is_at_rest(&self) -> bool {
        self.cycle.is_none() && self.outstanding.is_none() && !self.subscription_changed
    }

    fn is_open(&self, kind: Kind) -> bool {
        if kind == Kind::Address { self.addresses.is_some() } else { self.named.contains_key(&kind) }
    }

    fn open(&mut self, kind: Kind, mut request: DeltaDiscoveryRequest, now: Instant) {
        self.subscription_changed = true;
        self.takes_parts |= parts::are_taken(request.node.as_ref());
        let (latest, waypoint) = (&self.latest, self.role.waypoint());
        let is_published = |name: &str| latest.version_for(waypoint, kind, name).is_some();
        let declared = std::mem::take(&mut request.initial_resource_versions);
        let held = self.room.keep(declared, is_published, &self.limits);
        if kind == Kind::Address {
            self.addresses = Some(AddressWatch::open(&request, held, &self.limits));
            self.policies_until = Some(now + self.limits.policy_grace);
        } else {
            self.named.insert(kind, NamedWatch::open(kind, waypoint.cloned(), held));
        }
        if self.role.kinds().iter().all(|kind| *kind == Kind::Address || self.is_open(*kind)) {
            self.policies_until = None;
        }
    }

    fn resubscribe(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) {
        // Policies are always subscribed all, whatever names are given.
        let (Kind::Address, Some(watch)) = (kind, &mut self.addresses) else { return };
        let in_flight = self.outstanding.as_ref().map(|waiting| &waiting.brings);
        let pending = match self.cycle.as_mut().and_then(|cycle| cycle.pending.as_mut()) {
            Some((Kind::Address, changes)) => Some(changes),
            Some(_) | None => None,
        };
        self.subscription_changed |= watch.change(request, in_flight, pending);
    }

    /// Takes an ACK or NACK; one with a stale nonce is about a response long answered, and is ignored.
    fn answer(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) {
        let matches = |waiting: &Outstanding| waiting.kind == kind && waiting.nonce == request.response_nonce;
        if !self.outstanding.as_ref().is_some_and(matches) {
            return;
        }
        self.outstanding = None;
        if self.cycle.as_ref().is_none_or(|cycle| cycle.pending.is_none()) {
            if kind == Kind::Address {
                self.addresses.iter_mut().for_each(|watch| watch.answered = true);
            }
            self.named.get_mut(&kind).into_iter().for_each(NamedWatch::note_answer);
        }
        let Some(goal) = self.cycle.as_ref().map(|cycle| cycle.goal.clone()) else { return };
        // A refusal stands while the refused version does: it is not sent again before it changes.
        let waypoint = self.role.waypoint();
        self.refused.retain(|(of, name), refusal| {
            let version = goal.version_for(waypoint, kind, name);
            *of != kind || version.is_some_and(|version| version == refusal.version)
        });
        if let Some(status) = &request.error_detail {
            self.refuse(kind, &status.message, &goal);
        }
    }

    fn refuse(&mut self, kind: Kind, message: &str, goal: &Resources) {
        let waypoint = self.role.waypoint();
        for (name, reason) in refusals(message, |name| goal.version_for(waypoint, kind, name).is_some()) {
            let version = goal.version_for(waypoint, kind, &name).unwrap_or_default().to_owned();
            refusal::keep(&mut self.refused, kind, name, Refusal { version, reason });
        }
    }

    /// Goes on until something is to be sent or nothing is left to do.
    fn advance(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        if self.policies_until.is_some_and(|until| until <= now) {
            self.policies_until = None;
        }
        while self.outstanding.is_none() {
            if self.cycle.is_none() {
                if !self.is_behind() {
                    return None;
                }
                self.subscription_changed = false;
                self.cycle = Some(Cycle { goal: self.latest.clone(), plan: self.role.plan(), pending: None });
            }
            if let Some(response) = self.step(now) {
                return Some(response);
            }
        }
        None
    }

    /// Whether there is somebody to serve who is not known to be up to date.
    fn is_behind(&self) -> bool {
        let subscribed = !self.named.is_empty() || self.addresses.is_some();
        let newest = self.completed.as_ref().is_some_and(|done| Arc::ptr_eq(done, &self.latest));
        subscribed && self.policies_until.is_none() && (self.subscription_changed || !newest)
    }

    /// One step of the cycle; without anything to send the next one follows at once.
    fn step(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        let cycle = self.cycle.as_mut()?;
        if cycle.pending.is_none() {
            let Some(((kind, part), rest)) = cycle.plan.split_first() else {
                self.completed = self.cycle.take().map(|cycle| cycle.goal);
                return None;
            };
            cycle.plan = rest;
            let changes = if *kind == Kind::Address {
                let node = &self.node_name;
                self.addresses.as_mut().and_then(|watch| watch.changes(&cycle.goal, node, *part))
            } else {
                self.named.get_mut(kind).and_then(|watch| watch.changes(&cycle.goal, *part))
            };
            cycle.pending = changes.map(|changes| (*kind, changes));
        }
        let bytes_max = if self.takes_parts { self.limits.response_bytes_max } else { usize::MAX };
        let (kind, changes) = cycle.pending.as_mut()?;
        let (kind, content) = (*kind, changes.take(*kind, bytes_max));
        let (is_sent, has_more) = (changes.is_empty(), changes.has_more());
        if is_sent {
            cycle.pending = None;
        }
        let version = parts::version(cycle.goal.revision(), is_sent && !has_more);
        let revision = cycle.goal.revision();
        Some(self.send(kind, content, (revision, version), now))
    }

    fn send(
        &mut self,
        kind: Kind,
        content: Content,
        (revision, version): (u64, String),
        now: Instant,
    ) -> DeltaDiscoveryResponse {
        self.nonces += 1;
        let nonce = format!("{revision}.{}", self.nonces);
        let deadline = now + self.limits.answer_timeout;
        let wants_some = kind == Kind::Address && self.addresses.as_ref().is_some_and(AddressWatch::is_named);
        let names = content.upserts.iter().filter(|_| wants_some).map(|resource| resource.name.clone());
        let brings = names.collect();
        self.outstanding = Some(Outstanding { kind, nonce: nonce.clone(), deadline, brings });
        DeltaDiscoveryResponse {
            system_version_info: version,
            resources: content.upserts,
            type_url: kind.url().to_owned(),
            nonce,
            removed_resources: content.removed,
        }
    }
}
