//! What came of a row of the routing tables, compared with what the row expects.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use super::routes::schema::{Seen, Table};
use super::routes::{Case, World};
use super::text;

/// Requests by the rows' keys and the applications' ports.
pub(super) type Counts = BTreeMap<String, BTreeMap<u16, u64>>;

/// Percent points by which a share of real requests may be off.
const OFF_MAX: u64 = 5;

/// What is not as expected.
pub(super) struct Outcome {
    pub(super) problems: Vec<String>,
    /// Copies of requests that may still be on their way.
    pub(super) may_still_come: bool,
    by_chance: bool,
}

impl Outcome {
    /// Compares; `refused` is how many connections of the row were, `times` how many times the row's own number was sent.
    pub(super) fn new(
        case: &Case<'_>,
        seen: &Value,
        (counts, refused): (&Counts, u64),
        world: &World,
        times: u64,
    ) -> Self {
        let expect = &case.row.expect;
        let (all, sent) = (Told { seen, world }, case.row.times * times);
        let mut problems = all.errors(case);
        let mut by_chance = false;
        let by = all.by();
        if expect.share.is_empty() {
            problems.extend(all.each(case, &by));
        } else {
            let want = expect.share.iter().map(|(name, share)| (full(case.table, name), *share)).collect();
            let wrong = off("shares", &by, &want, sent);
            by_chance |= !wrong.is_empty();
            problems.extend(wrong);
        }
        let nothing = BTreeMap::new();
        let counted = counts.get(&case.key).unwrap_or(&nothing);
        if let Some(attempts) = expect.attempts {
            let got = counted.values().sum::<u64>() + refused;
            differ(&mut problems, "attempts", &got, &u64::from(attempts));
        }
        let mirrored = mirrored(case, counted, &by, world);
        by_chance |= !mirrored.is_empty();
        let may_still_come = !mirrored.is_empty();
        problems.extend(mirrored);
        Self { problems, may_still_come, by_chance: by_chance && case.row.times > 1 }
    }

    /// Whether chance alone may have made it wrong: then more requests tell.
    pub(super) fn is_doubtful(&self) -> bool {
        self.by_chance
    }
}

/// Compares what reached applications beside those that answered.
fn mirrored(
    case: &Case<'_>,
    counted: &BTreeMap<u16, u64>,
    by: &BTreeMap<String, u64>,
    world: &World,
) -> Vec<String> {
    if !case.row.upstream.is_empty() {
        return Vec::new();
    }
    let named = |(port, count): (&u16, &u64)| {
        let name = world.service_at(*port).unwrap_or_else(|| port.to_string());
        let answered = by.get(&name).copied().unwrap_or_default();
        (name, count.saturating_sub(answered))
    };
    let got = counted.iter().map(named).filter(|(_, count)| *count > 0).collect();
    let want =
        case.row.expect.mirrored.iter().map(|(name, share)| (full(case.table, name), *share)).collect();
    off("mirrored", &got, &want, by.values().sum())
}

/// Counts whose share is not the wanted one, or nearly.
fn off(what: &str, got: &BTreeMap<String, u64>, want: &BTreeMap<String, u64>, of: u64) -> Vec<String> {
    let is_near = |count: u64, share: u64| (count * 100).abs_diff(share * of) <= OFF_MAX * of;
    let stranger = got.iter().any(|(name, _)| !want.contains_key(name));
    let near = want.iter().all(|(name, share)| is_near(got.get(name).copied().unwrap_or_default(), *share));
    let wrong = stranger || !near;
    wrong.then(|| format!("{what} are {got:?} of {of}, expected percent {want:?}")).into_iter().collect()
}

fn full(table: &Table, name: &str) -> String {
    let is_status = name.parse::<u16>().is_ok();
    if is_status || name.contains('/') { name.to_owned() } else { format!("{}/{name}", table.namespace) }
}

/// What the client saw of a row.
struct Told<'a> {
    seen: &'a Value,
    world: &'a World,
}

impl Told<'_> {
    /// How many requests each service answered, or each status without one.
    fn by(&self) -> BTreeMap<String, u64> {
        let named = |(name, count): (&String, &Value)| {
            let port = name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let service = port.and_then(|port| self.world.service_at(port));
            (service.unwrap_or_else(|| name.clone()), count.as_u64().unwrap_or_default())
        };
        self.seen["by"].as_object().into_iter().flatten().map(named).collect()
    }

    fn is_stream(case: &Case<'_>) -> bool {
        case.row.request.stream || case.row.request.sni.is_some()
    }

    /// Errors that are not what the row is about: a connection that is passed on may end without an answer.
    fn errors(&self, case: &Case<'_>) -> Vec<String> {
        let is_wanted = Self::is_stream(case) && case.row.expect.status != 200;
        let errors = self.seen["errors"].as_object().into_iter().flatten().filter(|_| !is_wanted);
        errors.map(|(error, count)| format!("{count} times: {error}")).collect()
    }

    fn each(&self, case: &Case<'_>, by: &BTreeMap<String, u64>) -> Vec<String> {
        let (expect, last) = (&case.row.expect, &self.seen["last"]);
        let mut problems = Vec::new();
        let status = if Self::is_stream(case) && expect.status != 200 { 0 } else { expect.status };
        differ(&mut problems, "status", &last["status"].as_u64().unwrap_or_default(), &u64::from(status));
        let grpc =
            joined(&last["headers"], "grpc-status").or_else(|| joined(&last["trailers"], "grpc-status"));
        if expect.grpc.is_some() || grpc.as_deref().is_some_and(|code| code != "0") {
            differ(&mut problems, "grpc status", &grpc, &expect.grpc.map(|code| code.to_string()));
        }
        if let Some(backend) = &expect.backend {
            let names: Vec<String> = by.keys().cloned().collect();
            differ(&mut problems, "backend", &names, &vec![full(case.table, backend)]);
        }
        if expect.location.is_some() {
            differ(&mut problems, "location", &joined(&last["headers"], "location"), &expect.location);
        }
        if let Some(body) = &expect.body {
            differ(&mut problems, "body", &text(last, "body"), &&**body);
        }
        for (name, value) in &expect.response {
            differ(&mut problems, name, &joined(&last["headers"], name), value);
        }
        if let Some(want) = &expect.sees {
            compare_seen(&mut problems, want, text(last, "body"));
        }
        if !problems.is_empty() {
            let reason = joined(&last["headers"], "x-ambit-reason").unwrap_or_default();
            problems.push(format!("the last answer's reason is {reason:?}, its error {}", last["error"]));
        }
        problems
    }
}

/// Compares what the application told of the request.
fn compare_seen(problems: &mut Vec<String>, want: &Seen, body: &str) {
    // A gRPC message has five bytes before it.
    let told = body.find('{').and_then(|at| serde_json::from_str::<Value>(&body[at..]).ok());
    let Some(told) = told else { return problems.push(format!("the application told nothing: {body:?}")) };
    if let Some(path) = &want.path {
        differ(problems, "path seen", &text(&told, "path"), &&**path);
    }
    if let Some(host) = &want.host {
        differ(problems, "host seen", &text(&told, "host"), &&**host);
    }
    for (name, value) in &want.headers {
        differ(problems, name, &joined(&told["headers"], name), value);
    }
}

/// The lines of one name joined by commas; none if there are none.
pub(super) fn joined(headers: &Value, name: &str) -> Option<String> {
    let lines = headers[name.to_ascii_lowercase()].as_array()?;
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    Some(lines.join(","))
}

fn differ<T: PartialEq + Debug>(problems: &mut Vec<String>, what: &str, got: &T, want: &T) {
    if got != want {
        problems.push(format!("{what} is {got:?}, expected {want:?}"));
    }
}
