//! Every row of `tests/tables/routing/`, without a socket: manifests read, attached and compiled by the control plane,
//! then selection, plan, filters and retries as a waypoint decides them.

mod attempts;
mod config;
mod request;
mod schema;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use ambit_route::model::{Mirror, Retry, Target, Timeouts};
use ambit_route::{Answer, Failure, Forward, Plan, Selected, filter, session};
use ambit_types::ServiceKey;

use config::Config;
use request::{Head, Held};
use schema::{Expect, Group, Row, Table};

const FILES: &[(&str, &str)] = &[
    ("conformance", include_str!("../../../../tests/tables/routing/conformance.yaml")),
    ("gateway", include_str!("../../../../tests/tables/routing/gateway.yaml")),
    ("precedence", include_str!("../../../../tests/tables/routing/precedence.yaml")),
    ("filters", include_str!("../../../../tests/tables/routing/filters.yaml")),
    ("backends", include_str!("../../../../tests/tables/routing/backends.yaml")),
    ("attempts", include_str!("../../../../tests/tables/routing/attempts.yaml")),
    ("imports", include_str!("../../../../tests/tables/routing/imports.yaml")),
];

#[test]
fn every_row_of_the_routing_tables() {
    let (mut rows, mut wrong) = (0, String::new());
    for (file, text) in FILES {
        let table = Table::read(file, text);
        let before = rows;
        for group in &table.groups {
            rows += run_group(&table, group, &mut wrong);
        }
        println!("{file}: {} rows", rows - before);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(rows >= 150, "only {rows} rows");
}

fn run_group(table: &Table, group: &Group, wrong: &mut String) -> usize {
    let config = Config::compile(table, group);
    if config.errors != group.reported {
        let (got, want) = (config.errors.join("\n    "), group.reported.join("\n    "));
        let _ = writeln!(wrong, "{}: reported\n    {got}\n  instead of\n    {want}", group.name);
    }
    let mut names: Vec<&str> = group.when.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), group.when.len(), "{}: two rows have one name", group.name);
    let rows = group.when.iter().filter(|row| row.is_for("pure"));
    let counted = rows.map(|row| {
        for problem in run(table, &config, row) {
            let _ = writeln!(wrong, "{} / {}: {problem}", group.name, row.name);
        }
    });
    counted.count()
}

/// Runs a row as often as it says, with evenly spread draws, and compares.
fn run(table: &Table, config: &Config, row: &Row) -> Vec<String> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut told = None;
    for step in 0..row.times {
        let draw = (2 * step + 1) * (u64::MAX / (2 * row.times));
        let outcome = Case { table, config, row, draw, told: told.clone() }.run();
        told = sessions::told(row, outcome.response.as_ref()).or(told);
        outcomes.push(outcome);
    }
    row.expect.compare(table, &outcomes)
}

/// One request of a row.
struct Case<'a> {
    table: &'a Table,
    config: &'a Config,
    row: &'a Row,
    draw: u64,
    /// What the client was told of its session, as it repeats it.
    told: Option<(String, String)>,
}

/// What came of one request.
#[derive(Debug, Default)]
struct Outcome {
    status: u16,
    grpc: Option<u32>,
    backend: Option<String>,
    rule: Option<String>,
    seen: Option<Head>,
    response: Option<Head>,
    location: Option<String>,
    mirrored: Vec<String>,
    attempts: u32,
    body: Option<String>,
}

impl Case<'_> {
    fn run(&self) -> Outcome {
        let (service, port) = self.config.frontend(self.table, &self.row.to);
        let client = self.row.client.as_deref().unwrap_or(&self.table.namespace);
        let sent = &self.row.request;
        if sent.stream || sent.sni.is_some() {
            let selected = self.config.table.select_stream(&service, port, Some(client), sent.sni.as_deref());
            return self.stream(&selected, &service, port);
        }
        let name = self.row.to.rsplit_once(':').map_or(&*self.row.to, |(name, _)| name);
        let held = Held::new(sent, name, port).and(self.told.clone());
        let request = held.request();
        let selected = self.config.table.select(&service, Some(client), &request);
        let called = (&service, port);
        let session = sessions::held(&self.config.table, &selected, called, &request);
        let mut outcome = match selected.plan_of(&request, self.draw, session.as_ref()) {
            Plan::Answer(answer) => Self::answer(&answer, &held),
            Plan::Forward(forward) => self.forward(&forward, &held, &service, session),
        };
        outcome.rule = rule_of(&selected);
        outcome
    }

    fn stream(&self, selected: &Selected<'_>, service: &ServiceKey, port: u16) -> Outcome {
        let rule = rule_of(selected);
        match selected.plan_stream(self.draw) {
            Ok(backend) => {
                let target = backend.map_or_else(|| format!("{service}:{port}"), |b| b.target.to_string());
                let target = config::short(&target);
                Outcome { status: 200, backend: Some(target), rule, ..Outcome::default() }
            }
            Err(failure) => Outcome { status: failure.status(), rule, ..Outcome::default() },
        }
    }

    fn answer(answer: &Answer<'_>, held: &Held) -> Outcome {
        let is_grpc = held.request().is_grpc();
        let mut response = Head::default();
        let (mut location, mut body) = (None, None);
        match answer {
            Answer::Preflight(filter::Preflight::Granted(lines)) => {
                lines
                    .iter()
                    .for_each(|(name, value)| response.lines.push(((*name).to_owned(), value.clone())));
            }
            Answer::Redirect { location: to, .. } => location = Some(to.clone()),
            Answer::Respond(respond) => body = Some(respond.body.to_string()),
            Answer::Preflight(filter::Preflight::Refused) | Answer::Failure(_) => {}
        }
        let (status, grpc) = (answer.status(is_grpc), answer.grpc_status(is_grpc));
        Outcome { status, grpc, response: Some(response), location, body, ..Outcome::default() }
    }

    fn forward(
        &self,
        forward: &Forward<'_>,
        held: &Held,
        service: &ServiceKey,
        session: Option<session::Held<'_>>,
    ) -> Outcome {
        let request = held.request();
        let mut head = held.head();
        let mut mirrored = Vec::new();
        forward.apply(&mut head, |mirror: &Mirror, _| {
            // Over evenly spread draws the share of every mirror is exact.
            if filter::is_mirrored(mirror, self.draw) {
                mirrored.push(config::short(&mirror.target.to_string()));
            }
        });
        let of_the_mesh = Retry::of_the_mesh();
        let (timeouts, retry) = match forward.by {
            Some((rule, _)) => (rule.timeouts, &*rule.retry),
            None => (Timeouts::default(), &of_the_mesh),
        };
        let ended = attempts::run(self.row, &request, &timeouts, retry, self.draw);
        let mut response = Head::default();
        response.lines.push(("server".to_owned(), "echo".to_owned()));
        forward.apply_to_response(&request, ["server"].into_iter(), &mut response);
        response.lines.extend(sessions::line(&self.config.table, forward, (service, request.port), session));
        let target =
            forward.target().map_or_else(|| format!("{service}:{}", request.port), Target::to_string);
        let failed = ended.failure.filter(|_| request.is_grpc()).map(Failure::grpc_status);
        Outcome {
            status: ended.status(request.is_grpc()),
            grpc: failed.or(ended.grpc),
            backend: Some(config::short(&target)),
            seen: Some(head),
            response: Some(response),
            mirrored,
            attempts: ended.attempts,
            ..Outcome::default()
        }
    }
}

fn rule_of(selected: &Selected<'_>) -> Option<String> {
    match selected {
        Selected::Rule(rule, _) => Some(rule.id.to_string().replace(" rule ", " ")),
        Selected::Service | Selected::NoMatch(_) => None,
    }
}

impl Expect {
    /// What is not as expected.
    fn compare(&self, table: &Table, outcomes: &[Outcome]) -> Vec<String> {
        let full = |name: &str| config::full_name(table, name);
        let mut problems = Vec::new();
        if self.share.is_empty() {
            let each = outcomes.iter().flat_map(|outcome| self.compare_one(outcome, &full));
            problems.extend(each.collect::<std::collections::BTreeSet<_>>());
        } else {
            let by = |o: &Outcome| o.backend.clone().unwrap_or_else(|| o.status.to_string());
            let want = self.share.iter().map(|(name, percent)| (full(name), *percent));
            let got = percentages(outcomes.iter().map(by), outcomes.len());
            differ(&mut problems, "shares", &got, &want.collect());
        }
        let mirrored = outcomes.iter().flat_map(|outcome| outcome.mirrored.iter().cloned());
        let want: BTreeMap<String, u64> =
            self.mirrored.iter().map(|(name, percent)| (full(name), *percent)).collect();
        differ(&mut problems, "mirrored", &percentages(mirrored, outcomes.len()), &want);
        problems
    }

    fn compare_one(&self, outcome: &Outcome, full: &dyn Fn(&str) -> String) -> Vec<String> {
        let mut problems = Vec::new();
        differ(&mut problems, "status", &outcome.status, &self.status);
        if self.grpc.is_some() || outcome.grpc.is_some_and(|code| code != 0) {
            differ(&mut problems, "grpc status", &outcome.grpc, &self.grpc);
        }
        if let Some(backend) = &self.backend {
            differ(&mut problems, "backend", &outcome.backend, &Some(full(backend)));
        }
        if let Some(rule) = &self.rule {
            differ(&mut problems, "rule", &outcome.rule, &Some(full(rule)));
        }
        if let Some(attempts) = self.attempts {
            differ(&mut problems, "attempts", &outcome.attempts, &attempts);
        }
        if self.location.is_some() {
            differ(&mut problems, "location", &outcome.location, &self.location);
        }
        if self.body.is_some() {
            differ(&mut problems, "body", &outcome.body, &self.body);
        }
        if let Some(want) = &self.sees {
            let seen = outcome.seen.clone().unwrap_or_default();
            if let Some(path) = &want.path {
                differ(&mut problems, "path seen", &seen.target(), path);
            }
            if let Some(host) = &want.host {
                differ(&mut problems, "host seen", &seen.host, host);
            }
            want.headers
                .iter()
                .for_each(|(name, value)| differ(&mut problems, name, &seen.joined(name), value));
        }
        let response = outcome.response.clone().unwrap_or_default();
        self.response
            .iter()
            .for_each(|(name, value)| differ(&mut problems, name, &response.joined(name), value));
        problems
    }
}

fn percentages(names: impl Iterator<Item = String>, of: usize) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let of = u64::try_from(of).expect("few");
    counts.values_mut().for_each(|count| *count = (*count * 100 + of / 2) / of);
    counts
}

fn differ<T: PartialEq + std::fmt::Debug>(problems: &mut Vec<String>, what: &str, got: &T, want: &T) {
    if got != want {
        problems.push(format!("{what} is {got:?}, expected {want:?}"));
    }
}
