//! On-demand lookups: who waits for which key, until when, and what a key has brought.
//!
//! A key is answered by a resource of that name, one that lists the key among its aliases (G44), or a removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ambit_types::{Destination, GatewayAddress};

use super::{Limits, Update};
use crate::client::Content;
use crate::codec::Address;
use crate::names::NAME_BYTES_MAX;

/// Names one waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookedUp {
    /// The control plane has answered before and keeps the answer up to date: what is applied is what there is.
    Settled,
    /// Wait for this ticket in [`Answered`] or in [`super::Client::expired_waiters`]; call
    /// [`super::Client::poll_lookups`] for the request to send.
    Waiting(Ticket),
    /// Too many wait already, or the key is longer than a name can be; go on as if the key were unknown.
    Full,
}

/// A waiter that has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The waiter.
    pub ticket: Ticket,
    /// Whether there is something behind the key.
    pub found: bool,
}

/// Where a subscribed key stands.
#[derive(Debug)]
struct Key {
    sent: bool,
    answered: bool,
    used: Instant,
    waiters: Vec<(Ticket, Instant)>,
}

/// What is held, as far as forgetting needs it.
#[derive(Debug, Clone, Default)]
struct Record {
    aliases: BTreeSet<String>,
    services: BTreeSet<String>,
    /// Names or aliases of waypoints and gateways.
    gateways: BTreeSet<String>,
    own_node: bool,
    node: String,
}

/// Records of one update, by name.
#[derive(Debug, Default)]
pub(super) struct Covers(Vec<(String, Record)>);

#[derive(Debug)]
pub(super) struct Lookups {
    node_name: String,
    keys: BTreeMap<String, Key>,
    /// Of all keys together.
    key_bytes: usize,
    records: BTreeMap<String, Record>,
    /// Keys that a response has answered of which more follows, and whether there is something behind them.
    arrived: Vec<(String, bool)>,
    waiting: usize,
    next_ticket: u64,
}

/// What an update brings to those who wait.
pub(super) fn covers(update: &Update) -> Covers {
    let Content::Addresses { upserts, .. } = &update.content else {
        return Covers::default();
    };
    let named = upserts.iter().zip(update.aliases());
    Covers(named.map(|(address, (name, aliases))| (name.clone(), record(address, aliases))).collect())
}

fn record(address: &Address, listed: &[String]) -> Record {
    // A server may or may not list the aliases; they follow from the content in any case.
    let aliases = listed.iter().cloned().chain(address.aliases()).collect();
    match address {
        Address::Workload(workload) => Record {
            aliases,
            services: workload.services.keys().map(ToString::to_string).collect(),
            gateways: workload.waypoint.iter().chain(&workload.network_gateway).map(gateway).collect(),
            own_node: false,
            node: workload.node.to_string(),
        },
        Address::Service(service) => {
            let weighted = service.weighted_waypoints.iter().map(|one| &one.destination);
            let gateways = service.waypoint.iter().chain(weighted).map(gateway).collect();
            Record { aliases, gateways, ..Record::default() }
        }
    }
}

fn gateway(address: &GatewayAddress) -> String {
    match &address.destination {
        Destination::Hostname(key) => key.to_string(),
        Destination::Address(at) => at.to_string(),
    }
}

impl Lookups {
    pub(super) fn new(node_name: String) -> Self {
        let (keys, records, arrived) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { node_name, keys, key_bytes: 0, records, arrived, waiting: 0, next_ticket: 0 }
    }

    pub(super) fn ask(&mut self, key: &str, now: Instant, limits: &Limits) -> LookedUp {
        if let Some(known) = self.keys.get_mut(key) {
            known.used = now;
            if known.answered {
                return LookedUp::Settled;
            }
        }
        let new = !self.keys.contains_key(key);
        if self.waiting >= limits.waiters_max || (new && !self.has_room_for(key, limits)) {
            return LookedUp::Full;
        }
        if new {
            self.key_bytes += key.len();
        }
        self.next_ticket += 1;
        self.waiting += 1;
        let ticket = Ticket(self.next_ticket);
        let entry = self.keys.entry(key.to_owned()).or_insert_with(|| Key {
            sent: false,
            answered: false,
            used: now,
            waiters: Vec::new(),
        });
        entry.waiters.push((ticket, now + limits.lookup_timeout));
        LookedUp::Waiting(ticket)
    }

    fn has_room_for(&self, key: &str, limits: &Limits) -> bool {
        key.len() <= NAME_BYTES_MAX
            && self.keys.len() < limits.keys_max
            && self.key_bytes + key.len() <= limits.keys_bytes_max
    }

    /// Keys to subscribe to that have not been sent on this stream; they count as sent afterwards.
    pub(super) fn unsent(&mut self) -> Vec<String> {
        let unsent = self.keys.iter_mut().filter(|(_, key)| !key.sent);
        unsent
            .map(|(name, key)| {
                key.sent = true;
                name.clone()
            })
            .collect()
    }

    /// A new stream knows no keys: all of them.
    pub(super) fn resubscribe(&mut self) -> Vec<String> {
        // What a broken stream had begun to say is said anew.
        self.arrived.clear();
        self.keys.values_mut().for_each(|key| key.sent = false);
        self.unsent()
    }

    /// An update is in force, or a part of one.
    pub(super) fn arrived(&mut self, covers: Covers, removed: &[String], rejected: &[String]) {
        for name in removed {
            self.records.remove(name);
        }
        for name in removed.iter().chain(rejected) {
            self.note(name, false);
        }
        for (name, mut record) in covers.0 {
            record.own_node = !record.node.is_empty() && record.node == self.node_name;
            self.note(&name, true);
            for alias in &record.aliases {
                self.note(alias, true);
            }
            self.records.insert(name, record);
        }
    }

    fn note(&mut self, key: &str, found: bool) {
        if self.keys.contains_key(key) {
            self.arrived.push((key.to_owned(), found));
        }
    }

    /// Those whose key was answered: nothing is missing that came with it, such as the endpoints of a service.
    pub(super) fn answered(&mut self) -> Vec<Answered> {
        let mut answered = Vec::new();
        for (key, found) in std::mem::take(&mut self.arrived) {
            let Some(known) = self.keys.get_mut(&key) else { continue };
            known.answered = true;
            self.waiting -= known.waiters.len();
            answered.extend(known.waiters.drain(..).map(|(ticket, _)| Answered { ticket, found }));
        }
        answered
    }

    pub(super) fn expired(&mut self, now: Instant) -> Vec<Ticket> {
        let mut expired = Vec::new();
        for key in self.keys.values_mut() {
            let over = key.waiters.extract_if(.., |(_, deadline)| *deadline <= now);
            expired.extend(over.map(|(ticket, _)| ticket));
        }
        self.waiting -= expired.len();
        expired
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.keys.values().flat_map(|key| &key.waiters).map(|(_, deadline)| *deadline).min()
    }

    /// Keys unused for `idle`, and the records that no other key and not this node needs.
    pub(super) fn idle(&mut self, now: Instant, idle: Duration) -> Option<(Vec<String>, Vec<String>)> {
        let old: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, key)| key.waiters.is_empty() && now.saturating_duration_since(key.used) >= idle)
            .map(|(name, _)| name.clone())
            .collect();
        if old.is_empty() {
            return None;
        }
        for key in &old {
            self.keys.remove(key);
            self.key_bytes -= key.len();
        }
        let needed = self.needed();
        let others = self.records.keys().filter(|name| !needed.contains(name.as_str()));
        let names: Vec<String> = others.cloned().collect();
        for name in &names {
            self.records.remove(name);
        }
        Some((names, old))
    }

    /// The records of this node and behind the keys, with what those need: endpoints of a service, waypoints and
    /// gateways, and the services in front of a workload, as the server sends them along.
    fn needed(&self) -> BTreeSet<&str> {
        let direct = |name: &str, record: &Record| {
            record.own_node
                || self.keys.contains_key(name)
                || record.aliases.iter().any(|alias| self.keys.contains_key(alias))
        };
        let records = || self.records.iter().map(|(name, record)| (name.as_str(), record));
        let mut needed: BTreeSet<&str> =
            records().filter(|(name, record)| direct(name, record)).map(|(name, _)| name).collect();
        let of_direct = needed.iter().filter_map(|name| self.records.get(*name));
        // Without their other endpoints.
        let in_front: BTreeSet<&str> =
            of_direct.flat_map(|record| record.services.iter().map(String::as_str)).collect();
        loop {
            let known = needed.iter().chain(&in_front).filter_map(|name| self.records.get(*name));
            let gateways: BTreeSet<&str> =
                known.flat_map(|record| record.gateways.iter().map(String::as_str)).collect();
            let is_reached = |name: &str, record: &Record| {
                gateways.contains(name)
                    || record.aliases.iter().any(|alias| gateways.contains(alias.as_str()))
                    || record.services.iter().any(|service| needed.contains(service.as_str()))
            };
            let more: Vec<&str> = records()
                .filter(|(name, record)| !needed.contains(name) && is_reached(name, record))
                .map(|(name, _)| name)
                .collect();
            if more.is_empty() {
                break;
            }
            needed.extend(more);
        }
        needed.extend(in_front);
        needed
    }
}
