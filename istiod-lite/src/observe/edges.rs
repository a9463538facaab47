//! Who talks to whom, from what both ends and the waypoint between them report: one edge each, nothing counted twice.
//!
//! Of two reporters of one connection the larger count stands, since either may have been lost. Both halves of a way
//! through a waypoint are one edge from the client to the service; what the waypoint then opens for it is not another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use ambit_explain::{Flow, FlowEnd};
use ambit_types::Reason;
use ambit_xds::observe::quantile_ms;
use ambit_xds::proto::ambit::observe::v1::Reporter;
use serde_json::{Value, json};

use super::aggregates::{Aggregates, Counts, EndFacts, EndName, Seen};

#[cfg(test)]
mod tests;

/// What tells edges apart: the destination is a workload, or else what was addressed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    source: EndName,
    destination: EndName,
    /// Empty where the destination is a workload.
    addressed: String,
    port: u16,
}

/// What one reporter counted.
#[derive(Debug, Clone, Default)]
struct Told {
    allowed: Counts,
    recent: Counts,
    denied: u64,
    recent_denied: u64,
    open: u64,
    codes: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Edge {
    by: BTreeMap<Reporter, Told>,
    ends: [EndFacts; 2],
    services: BTreeSet<String>,
    workloads: BTreeSet<EndName>,
    paths: BTreeSet<String>,
    denied_paths: BTreeSet<String>,
    policies: BTreeSet<String>,
    last_seen: u64,
}

/// Edges of the last `window` seconds, by id.
pub(super) fn edges(aggregates: &Aggregates, window: u64, now: u64) -> Vec<Value> {
    let seconds = aggregates.rate_seconds(window, now);
    let edges = gathered(aggregates, window, now);
    edges.iter().map(|(name, edge)| edge.shown(name, seconds)).collect()
}

/// The same, each with `by`: what its sides told. Proxies attend one replica each, so the sides of a connection may be known
/// to two of them; whoever adds edges up has to do that side by side.
pub(super) fn reported(aggregates: &Aggregates, window: u64, now: u64) -> Vec<Value> {
    let seconds = aggregates.rate_seconds(window, now);
    let edges = gathered(aggregates, window, now);
    let shown = |(name, edge): (&Name, &Edge)| {
        let mut shown = edge.shown(name, seconds);
        shown["by"] = edge.sides(seconds);
        shown
    };
    edges.iter().map(shown).collect()
}

fn gathered(aggregates: &Aggregates, window: u64, now: u64) -> BTreeMap<Name, Edge> {
    let mut edges: BTreeMap<Name, Edge> = BTreeMap::new();
    for seen in aggregates.seen(window, now).filter(|seen| !is_second_leg(seen)) {
        edges.entry(name(&seen)).or_default().add(&seen);
    }
    edges
}

/// What a waypoint opened for somebody else; the waypoint's own report has it with its client.
fn is_second_leg(seen: &Seen<'_>) -> bool {
    !seen.name.client.is_empty()
}

fn name(seen: &Seen<'_>) -> Name {
    let name = seen.name;
    let via_waypoint = name.path == "waypoint" && !name.service.is_empty();
    let (destination, addressed) = match (via_waypoint, name.destination.workload.is_empty()) {
        (false, false) => (name.destination.clone(), String::new()),
        (true, _) => (EndName::default(), name.service.clone()),
        (false, true) if !name.service.is_empty() => (EndName::default(), name.service.clone()),
        (false, true) => (EndName::default(), ip(&seen.ends[1].address).to_owned()),
    };
    Name { source: name.source.end.clone(), destination, addressed, port: name.port }
}

/// The address without its port.
fn ip(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(ip, _)| ip)
}

/// Connections that a pair stands for, each of those that were let in once, however it ended.
fn connections(seen: &Seen<'_>) -> u64 {
    let (name, counts) = (seen.name, &seen.counts);
    match (name.is_denied, name.reporter) {
        (true, _) => denied(counts).saturating_sub(counts.cut),
        (false, Reporter::Waypoint) => counts.requests.max(counts.opened),
        (false, Reporter::Source | Reporter::Destination | Reporter::Unspecified) => counts.opened,
    }
}

/// Requests and connections that were refused; of connections that were let in first, that they were cut.
fn denied(counts: &Counts) -> u64 {
    counts.ended.saturating_add(counts.requests)
}

impl Edge {
    fn add(&mut self, seen: &Seen<'_>) {
        let name = seen.name;
        let told = self.by.entry(name.reporter).or_default();
        told.open += seen.open;
        if name.is_denied {
            told.denied += denied(&seen.counts);
            told.recent_denied += denied(&seen.recent);
            *told.codes.entry(name.code.clone()).or_default() += denied(&seen.counts);
            self.denied_paths.insert(name.path.clone());
        } else {
            self.paths.insert(name.path.clone());
        }
        // A connection that was cut has moved bytes; a request that was refused took its time.
        told.allowed.add(&seen.counts);
        told.recent.add(&seen.recent);
        self.policies.extend(Some(name.policy.clone()).filter(|policy| !policy.is_empty()));
        self.services.extend(Some(name.service.clone()).filter(|service| !service.is_empty()));
        // Behind a waypoint's address is the waypoint, and not who was meant.
        let is_meant =
            name.path != "waypoint" || name.reporter == Reporter::Waypoint || name.service.is_empty();
        if is_meant && !name.destination.workload.is_empty() {
            self.workloads.insert(name.destination.clone());
        }
        let [source, destination] = seen.ends;
        fill(&mut self.ends[0], source);
        if is_meant {
            fill(&mut self.ends[1], destination);
        }
        self.last_seen = self.last_seen.max(seen.last_seen);
    }

    fn most(&self, count: impl Fn(&Told) -> u64) -> u64 {
        self.by.values().map(count).max().unwrap_or(0)
    }

    fn codes(&self) -> BTreeMap<&str, u64> {
        let by_destination = self.by.get(&Reporter::Destination).is_some_and(|told| told.denied > 0);
        let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
        for (code, count) in self.by.values().flat_map(|told| &told.codes) {
            // The source only hears that it was refused; the destination says why.
            if by_destination && code == Reason::TunnelRejected.code() {
                continue;
            }
            let most = codes.entry(code).or_default();
            *most = (*most).max(*count);
        }
        codes.remove("");
        codes
    }

    /// What each side told.
    fn sides(&self, seconds: u64) -> Value {
        let side = |told: &Told| {
            json!({
                "connections": told.allowed.opened, "open": told.open, "denied": told.denied, "codes": told.codes,
                "requests": told.allowed.requests, "failed": told.allowed.failed,
                "rate_per_s": rate(told.recent.opened.saturating_add(told.recent_denied), seconds),
                "requests_per_s": rate(told.recent.requests, seconds),
                "bytes_sent_per_s": rate(told.recent.sent, seconds),
                "bytes_received_per_s": rate(told.recent.received, seconds),
            })
        };
        let named = |(reporter, told): (&Reporter, &Told)| {
            let name = match reporter {
                Reporter::Source => "source",
                Reporter::Destination => "destination",
                Reporter::Waypoint => "waypoint",
                Reporter::Unspecified => "unknown",
            };
            (name.to_owned(), side(told))
        };
        Value::Object(self.by.iter().map(named).collect())
    }

    /// The edge as the API has it.
    fn shown(&self, name: &Name, seconds: u64) -> Value {
        let [source, destination] = &self.ends;
        let connections = self.most(|told| told.allowed.opened);
        let denied = self.most(|told| told.denied);
        let paths = if self.paths.is_empty() { &self.denied_paths } else { &self.paths };
        let why_not = why_not(paths, &self.ends);
        let rate = |count: fn(&Told) -> u64| rate(self.most(count), seconds);
        let http = self.by.get(&Reporter::Waypoint).filter(|told| told.allowed.requests > 0);
        let quantile = |q| http.and_then(|told| quantile_ms(&told.allowed.latency, q)).map(rounded);
        let service = self.services.first();
        // The workload that is meant, if it is only one.
        let workload = Some(&name.destination).filter(|end| !end.workload.is_empty());
        let workload = workload.or_else(|| self.workloads.first().filter(|_| self.workloads.len() == 1));
        let namespace = workload.map(|end| &*end.namespace).or_else(|| namespace_of(service?));
        json!({
            "id": id(name),
            "source": shown_end(&name.source, source),
            "destination": {
                "namespace": namespace,
                "workload": workload.map(|end| &end.workload),
                "service": service,
                "services": self.services,
                "identity": known(&destination.identity),
                "node": known(&destination.node),
                "addr": known(&destination.address),
            },
            "port": name.port,
            "paths": paths,
            "secured": why_not.is_none(),
            "why_not": why_not,
            "connections": connections,
            "open": self.most(|told| told.open),
            "rate_per_s": rate(|told| told.recent.opened.saturating_add(told.recent_denied)),
            "requests_per_s": http.map(|_| rate(|told| told.recent.requests)),
            "success": success(http, connections, denied),
            "latency_ms_p50": quantile(0.5),
            "latency_ms_p95": quantile(0.95),
            "latency_ms_p99": quantile(0.99),
            "bytes_sent_per_s": rate(|told| told.recent.sent),
            "bytes_received_per_s": rate(|told| told.recent.received),
            "denied": denied,
            "codes": self.codes(),
            "policies": self.policies,
            "last_seen": rfc3339(self.last_seen),
        })
    }
}

/// What is newly known, where something is.
fn fill(held: &mut EndFacts, new: &EndFacts) {
    for (held, new) in [
        (&mut held.identity, &new.identity),
        (&mut held.node, &new.node),
        (&mut held.pod, &new.pod),
        (&mut held.address, &new.address),
    ] {
        if !new.is_empty() {
            held.clone_from(new);
        }
    }
}

fn id(name: &Name) -> String {
    let Name { source, destination, addressed, port } = name;
    let end = |end: &EndName| match end.workload.is_empty() {
        true => "outside".to_owned(),
        false => format!("{}/{}", end.namespace, end.workload),
    };
    let destination = if addressed.is_empty() { end(destination) } else { addressed.clone() };
    format!("{}>{destination}:{port}", end(source))
}

fn shown_end(end: &EndName, facts: &EndFacts) -> Value {
    json!({
        "namespace": known(&end.namespace), "workload": known(&end.workload),
        "identity": known(&facts.identity), "node": known(&facts.node), "addr": known(&facts.address),
    })
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// `NAME.NAMESPACE.svc…` says where a service is.
fn namespace_of(host: &str) -> Option<&str> {
    let mut labels = host.split('.').skip(1);
    let namespace = labels.next()?;
    (labels.next() == Some("svc")).then_some(namespace)
}

/// Why an edge is not secured; none if it is. Pods of one node are joined by the proxy that identified both.
fn why_not(paths: &BTreeSet<String>, [source, destination]: &[EndFacts; 2]) -> Option<&'static str> {
    let is = |path: &str| paths.contains(path);
    if is("plaintext") {
        return Some(match (source.identity.is_empty(), destination.identity.is_empty()) {
            (true, _) => "plaintext: the source has no identity",
            (false, _) => "plaintext: the destination takes no tunnel",
        });
    }
    if is("passthrough") {
        return Some("the destination is not in the mesh");
    }
    is("probe").then_some("a probe of the kubelet")
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn rate(count: u64, seconds: u64) -> f64 {
    rounded(count as f64 / seconds as f64)
}

/// Three digits behind the point are enough for people, and keep what is equal equal.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The share that went well: of requests where there are any, else of connections.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn success(http: Option<&Told>, connections: u64, denied: u64) -> Option<f64> {
    let (good, all) = match http {
        Some(told) => {
            let requests = told.allowed.requests;
            (requests.saturating_sub(told.allowed.failed.max(told.denied)), requests)
        }
        None => (connections, connections.saturating_add(denied)),
    };
    (all > 0).then(|| rounded(good as f64 / all as f64))
}

fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// As records have it, so that times compare as texts.
pub(super) fn rfc3339_millis(seconds: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// What was told of the same twice: of which edge, and whether it was refused.
type Twice = (Name, bool);

/// The pairs of the last `window` seconds as records to be decided again. What both ends report stands once, as the
/// destination's node told it, with the larger number: either may not have told its newest part yet. What a waypoint
/// opened has its client.
pub(super) fn flows(aggregates: &Aggregates, window: u64, now: u64) -> Vec<Flow> {
    let all: Vec<(Seen<'_>, Twice, u64)> = aggregates
        .seen(window, now)
        .map(|seen| {
            let (twice, connections) = ((name(&seen), seen.name.is_denied), connections(&seen));
            (seen, twice, connections)
        })
        .filter(|(_, _, connections)| *connections > 0)
        .collect();
    let (mut by_source, mut by_other) = (BTreeMap::<&Twice, u64>::new(), BTreeMap::<&Twice, u64>::new());
    for (seen, twice, connections) in &all {
        let sums = if seen.name.reporter == Reporter::Source { &mut by_source } else { &mut by_other };
        let sum = sums.entry(twice).or_default();
        *sum = sum.saturating_add(*connections);
    }
    let mut flows = Vec::new();
    for (seen, twice, connections) in &all {
        let mut connections = *connections;
        match (seen.name.reporter, seen.name.is_denied) {
            (Reporter::Source, _) if by_other.contains_key(twice) => continue,
            // What was refused at the source did not come to the destination, so the numbers are not of the same.
            (Reporter::Destination, false) => {
                let told = by_other.get(twice).copied().unwrap_or(0);
                let more = by_source.remove(twice).map_or(0, |by_source| by_source.saturating_sub(told));
                connections = connections.saturating_add(more);
            }
            (Reporter::Source | Reporter::Destination | Reporter::Waypoint | Reporter::Unspecified, _) => {}
        }
        flows.push(flow(seen, connections));
    }
    flows
}

/// A pair as a record that stands for so many connections.
fn flow(seen: &Seen<'_>, connections: u64) -> Flow {
    let name = seen.name;
    let text = |text: &str| known(text).map(str::to_owned);
    let end = |end: &EndName, facts: &EndFacts| FlowEnd {
        addr: text(&facts.address),
        workload: text(&facts.pod),
        controller: text(&end.workload),
        namespace: text(&end.namespace),
        identity: text(&facts.identity),
    };
    let [source, destination] = seen.ends;
    let is_outside = name.source.end.workload.is_empty() && name.source.identity.is_empty();
    let mut caller = end(&name.source.end, source);
    if is_outside && name.source.address.is_empty() {
        // One of many, and no name of any.
        caller.addr = None;
    }
    let asked = match name.path == "waypoint" && !name.service.is_empty() {
        true => format!("{}:{}", name.service, name.port),
        false => format!("{}:{}", ip(&destination.address), name.port),
    };
    // The proxy of that node told of it; which waypoint did is not kept.
    let node = match name.reporter {
        Reporter::Source => &*source.node,
        Reporter::Destination => &*destination.node,
        Reporter::Waypoint | Reporter::Unspecified => "",
    };
    Flow {
        time: rfc3339_millis(seen.last_seen),
        node: node.to_owned(),
        direction: Some(if name.reporter == Reporter::Source { "outbound" } else { "inbound" }.to_owned()),
        verdict: if name.is_denied { "denied" } else { "allowed" }.to_owned(),
        code: text(&name.code),
        policy: text(&name.policy),
        path: name.path.clone(),
        src: caller,
        client: text(&name.client),
        dst: end(&name.destination, destination),
        service: text(&name.service),
        hbone_addr: Some(asked),
        connections,
        ..Flow::default()
    }
}
