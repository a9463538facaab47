//! The subscriber's side of delta discovery: what to ask, what a response changes, what to answer.
//!
//! Holds only names and versions; the resources themselves go to whoever applies an [`Update`]. A response is
//! acknowledged by [`Receipt::applied`], so nothing is ever acknowledged that is not in force. Resources that
//! cannot be read are refused one by one, the rest of their response counts, also towards being synced (G13). Of a
//! response in parts ([`crate::parts`]) each part is put in force and acknowledged as it comes; it counts with the last.
//!
//! A node's client ([`Client::new`]) and a waypoint's ([`Client::for_waypoint`]) differ in what they subscribe to.

pub mod backoff;
mod lookup;
mod response;
pub mod store;
#[cfg(test)]
mod tests;
mod waypoint;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use lookup::{Answered, LookedUp, Ticket};
pub use response::{Content, Rejected, Update};
pub use store::Store;
pub use waypoint::WaypointContent;

use ambit_types::Str;

use crate::kind::{Kind, PerKind};
use crate::names::{NAME_BYTES_MAX, shortened};
use crate::node::NodeIdentity;
use crate::parts;
use crate::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::proto::google::rpc::Status;
use lookup::Lookups;
use prost::Message;

/// The name that means every resource.
pub(crate) const WILDCARD: &str = "*";

/// Bounds of a client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest first request, in bytes; default 3 MiB, because istiod receives at most 4 MiB.
    ///
    /// Names that do not fit are not declared: the server sends them again, and what it does not send is gone. Of
    /// policies that many would be needed that the order "reference first, then policy" is given up there: a workload
    /// that names one that is gone refuses connections until its own update arrives.
    pub request_bytes_max: usize,
    /// Most waiters for on-demand answers at once; default 4096.
    pub waiters_max: usize,
    /// Most on-demand keys subscribed at once; default 16384. A pod that tries many addresses meets it.
    pub keys_max: usize,
    /// Most bytes of those keys; default 2 MiB. All are subscribed in one request when a stream opens, and istiod
    /// receives at most 4 MiB. A key that is longer than [`NAME_BYTES_MAX`] is not asked for: no name is.
    pub keys_bytes_max: usize,
    /// Longest wait for an on-demand answer; default 5 s. A server that is away does not make it longer (G48).
    pub lookup_timeout: Duration,
    /// How long an on-demand key that nobody asks for stays subscribed; default 10 min.
    pub lookup_idle: Duration,
    /// Longest text of a NACK, in bytes; default 64 KiB.
    pub error_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 3 << 20,
            waiters_max: 4096,
            keys_max: 16_384,
            keys_bytes_max: 2 << 20,
            lookup_timeout: Duration::from_secs(5),
            lookup_idle: Duration::from_secs(600),
            error_bytes_max: 64 << 10,
        }
    }
}

/// Which workloads and services a client wants. Everything else is always wanted all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every one of the mesh.
    Wildcard,
    /// Those of its own node, and what is asked for by [`Client::look_up`].
    OnDemand,
}

/// What the client knows of one kind.
#[derive(Debug, Default)]
struct Subscription {
    /// Versions by name; "" for what was refused, or came without a version: the server must send it again.
    held: BTreeMap<String, String>,
    /// Names held that did not fit into this stream's first request.
    undeclared: BTreeSet<String>,
    /// This stream has had no response yet, or not all parts of the first one.
    awaiting_first: bool,
    /// A response was applied, on this or an earlier stream.
    synced: bool,
}

/// The state of a subscriber across all its streams.
#[derive(Debug)]
pub struct Client {
    node: NodeIdentity,
    /// The Gateway it belongs to, of a waypoint.
    gateway: Option<Str>,
    /// What it subscribes to, in this order.
    kinds: &'static [Kind],
    mode: Mode,
    limits: Limits,
    subscriptions: PerKind<Subscription>,
    lookups: Lookups,
    /// Counts streams, so that a receipt of an earlier one yields no request on this one.
    stream: u64,
    connected: bool,
}

impl Client {
    /// A node's client, which holds nothing yet and subscribes to [`Kind::ALL`].
    pub fn new(node: NodeIdentity, mode: Mode, limits: Limits) -> Self {
        Self::with(node, None, &Kind::ALL, mode, limits)
    }

    /// The client of a waypoint that belongs to the Gateway `gateway` of its own namespace.
    ///
    /// It holds nothing yet and subscribes to everything of [`Kind::WAYPOINT`]. [`Store`] takes its updates.
    pub fn for_waypoint(node: NodeIdentity, gateway: impl Into<Str>, limits: Limits) -> Self {
        Self::with(node, Some(gateway.into()), &Kind::WAYPOINT, Mode::Wildcard, limits)
    }

    fn with(
        node: NodeIdentity,
        gateway: Option<Str>,
        kinds: &'static [Kind],
        mode: Mode,
        limits: Limits,
    ) -> Self {
        let node_name = node.node_name.clone();
        Self {
            node,
            gateway,
            kinds,
            mode,
            limits,
            subscriptions: PerKind::default(),
            lookups: Lookups::new(node_name),
            stream: 0,
            connected: false,
        }
    }

    /// A stream was opened: the requests to send first, in this order.
    ///
    /// Everything held is declared with its version, so that only differences come back.
    pub fn on_connect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.stream += 1;
        self.connected = true;
        let mut requests: Vec<_> = self.kinds.iter().map(|kind| self.first_request(*kind)).collect();
        if self.mode == Mode::OnDemand {
            let keys = self.lookups.resubscribe();
            if !keys.is_empty() {
                requests.push(subscribe(keys, Vec::new()));
            }
        }
        requests
    }

    /// The stream ended. What is held stays held and in force.
    pub fn on_disconnect(&mut self) {
        self.connected = false;
    }

    fn first_request(&mut self, kind: Kind) -> DeltaDiscoveryRequest {
        let on_demand = kind == Kind::Address && self.mode == Mode::OnDemand;
        // Subscribing to everything and at once unsubscribing from it is the agreed way to ask for nothing yet.
        let names = || if on_demand { vec![WILDCARD.to_owned()] } else { Vec::new() };
        let node = match &self.gateway {
            None => self.node.encode(),
            Some(gateway) => self.node.encode_as_waypoint(gateway),
        };
        let mut request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names(),
            resource_names_unsubscribe: names(),
            ..DeltaDiscoveryRequest::default()
        };
        let mut bytes = request.encoded_len();
        let subscription = self.subscriptions.of_mut(kind);
        subscription.awaiting_first = true;
        subscription.undeclared.clear();
        for (name, version) in &subscription.held {
            let with = bytes.saturating_add(entry_bytes(name, version));
            // A server ends the stream for a longer name, and would each time.
            if with > self.limits.request_bytes_max || name.len() > NAME_BYTES_MAX {
                subscription.undeclared.insert(name.clone());
            } else {
                bytes = with;
                request.initial_resource_versions.insert(name.clone(), version.clone());
            }
        }
        request
    }

    /// Reads a response. Apply the update, then send what [`Receipt::applied`] returns.
    ///
    /// A receipt that is dropped leaves the client as if the response had never come; end the stream then.
    pub fn handle_response(&mut self, response: DeltaDiscoveryResponse) -> (Update, Receipt) {
        let kind = Kind::among(self.kinds, &response.type_url);
        let (nonce, type_url) = (response.nonce.clone(), response.type_url.clone());
        let is_last = parts::is_last(&response);
        let mut update = response::read(kind, response);
        if let Some(kind) = kind {
            let subscription = self.subscriptions.of_mut(kind);
            if subscription.awaiting_first {
                update.mentioned().for_each(|name| _ = subscription.undeclared.remove(name));
                if is_last {
                    subscription.awaiting_first = false;
                    update.remove(std::mem::take(&mut subscription.undeclared));
                }
            }
        }
        let receipt = Receipt {
            stream: self.stream,
            kind,
            is_last,
            type_url,
            nonce,
            versions: update.take_versions(),
            removed: update.content.removed().to_vec(),
            rejected: update.rejected.iter().map(|rejected| rejected.name.clone()).collect(),
            error: nack_text(&update.rejected, self.limits.error_bytes_max),
            covered: lookup::covers(&update),
        };
        (update, receipt)
    }

    /// Whether all that is subscribed has arrived once and was applied; on demand, whether policies have.
    pub fn is_synced(&self) -> bool {
        self.needed().iter().all(|kind| self.subscriptions.of(*kind).synced)
    }

    /// Whether this stream has answered for each of those kinds: what is held is what the control plane says now.
    pub fn is_confirmed(&self) -> bool {
        let answered = |kind: &Kind| !self.subscriptions.of(*kind).awaiting_first;
        self.connected && self.is_synced() && self.needed().iter().all(answered)
    }

    fn needed(&self) -> &'static [Kind] {
        match self.mode {
            Mode::Wildcard => self.kinds,
            Mode::OnDemand => &[Kind::Authorization],
        }
    }

    /// How many resources of a kind are held, and how long their declaration is, in bytes.
    pub fn held(&self, kind: Kind) -> (usize, usize) {
        let held = &self.subscriptions.of(kind).held;
        (held.len(), held.iter().map(|(name, version)| entry_bytes(name, version)).sum())
    }

    /// Asks for the workload or service behind a key: `NETWORK/IP`, `NAMESPACE/HOSTNAME` or a uid.
    ///
    /// In wildcard mode everything there is has been sent already, so nothing is ever waited for.
    pub fn look_up(&mut self, key: &str, now: Instant) -> LookedUp {
        match self.mode {
            Mode::Wildcard => LookedUp::Settled,
            Mode::OnDemand => self.lookups.ask(key, now, &self.limits),
        }
    }

    /// The request for keys asked for since the last call; `None` if there are none or no stream is up.
    pub fn poll_lookups(&mut self) -> Option<DeltaDiscoveryRequest> {
        if !self.connected {
            return None;
        }
        let keys = self.lookups.unsent();
        (!keys.is_empty()).then(|| subscribe(keys, Vec::new()))
    }

    /// Waiters whose time is over; they go on without an answer.
    pub fn expired_waiters(&mut self, now: Instant) -> Vec<Ticket> {
        self.lookups.expired(now)
    }

    /// When [`Self::expired_waiters`] has something next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lookups.next_deadline()
    }

    /// Lets go of keys that nobody asked for of late.
    ///
    /// The names are no longer kept up to date by the server: remove them as if it had said so, and send the request
    /// if a stream is up.
    pub fn forget_idle(&mut self, now: Instant) -> Option<(Vec<String>, Option<DeltaDiscoveryRequest>)> {
        let (names, keys) = self.lookups.idle(now, self.limits.lookup_idle)?;
        for name in &names {
            self.subscriptions.of_mut(Kind::Address).held.remove(name);
        }
        let can_be_named = |name: &String| name.len() <= NAME_BYTES_MAX;
        let all = keys.into_iter().chain(names.iter().cloned());
        let unsubscribe = all.filter(can_be_named).collect::<BTreeSet<_>>();
        let request = self.connected.then(|| subscribe(Vec::new(), unsubscribe.into_iter().collect()));
        Some((names, request))
    }
}

/// A request of its own accord: changes what is subscribed, answers nothing.
fn subscribe(subscribe: Vec<String>, unsubscribe: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: Kind::Address.url().to_owned(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        ..DeltaDiscoveryRequest::default()
    }
}

/// Upper bound of what one entry adds to a request: two texts, their tags and lengths, and those of the entry.
fn entry_bytes(name: &str, version: &str) -> usize {
    const FRAMING: usize = 16;
    name.len() + version.len() + FRAMING
}

/// Every refusal as `NAME: REASON`, joined by `; ` as control planes expect it.
fn nack_text(rejected: &[Rejected], bytes_max: usize) -> Option<String> {
    if rejected.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (index, each) in rejected.iter().enumerate() {
        let one = shortened(&format!("{}: {}", each.name, each.reason), bytes_max);
        if text.len() + one.len() + 2 > bytes_max && index > 0 {
            text.push_str(&format!("; and {} more", rejected.len() - index));
            break;
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(&one);
    }
    Some(text)
}

/// A response that was read and not yet acknowledged.
#[derive(Debug)]
#[must_use = "the server waits for the acknowledgement"]
pub struct Receipt {
    stream: u64,
    kind: Option<Kind>,
    /// No further part of it follows.
    is_last: bool,
    type_url: String,
    nonce: String,
    versions: Vec<(String, String)>,
    removed: Vec<String>,
    rejected: Vec<String>,
    error: Option<String>,
    covered: lookup::Covers,
}

/// What follows once a response is in force.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// The ACK or NACK; `None` if the stream of the response is gone.
    pub request: Option<DeltaDiscoveryRequest>,
    /// On-demand waiters that have their answer.
    pub answered: Vec<Answered>,
}

impl Receipt {
    /// The update is in force: remembers what is held, and yields the acknowledgement.
    ///
    /// Resources without complaint are acknowledged with the nonce and empty lists; refused ones by name and reason.
    pub fn applied(self, client: &mut Client) -> Acknowledged {
        let mut answered = Vec::new();
        if let Some(kind) = self.kind {
            let subscription = client.subscriptions.of_mut(kind);
            for name in &self.removed {
                subscription.held.remove(name);
            }
            subscription.held.extend(self.versions);
            // Declared without a version: the server sends it again, or says that it is gone.
            subscription.held.extend(self.rejected.iter().map(|name| (name.clone(), String::new())));
            subscription.synced |= self.is_last;
            if kind == Kind::Address && client.mode == Mode::OnDemand {
                client.lookups.arrived(self.covered, &self.removed, &self.rejected);
                if self.is_last {
                    answered = client.lookups.answered();
                }
            }
        }
        let current = client.connected && self.stream == client.stream;
        let request = current.then(|| DeltaDiscoveryRequest {
            type_url: self.type_url,
            response_nonce: self.nonce,
            error_detail: self.error.map(|message| Status { code: 0, message, details: Vec::new() }),
            ..DeltaDiscoveryRequest::default()
        });
        Acknowledged { request, answered }
    }
}
