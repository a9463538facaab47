//! Every row of `tests/tables/conditions.yaml`: objects that are wrong in themselves, or that refer to what is not there,
//! and what their status says. Whatever is right beside them stays in force.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use ambit_control::Standing;
use ambit_control::input::Name;
use ambit_control::status::Report;
use ambit_route::model::{RouteConfig, Scheme};
use ambit_route::{Plan, Request, Table as Compiled};
use ambit_types::{Reason, ServiceKey};
use serde::Deserialize;

const TABLE: &str = include_str!("../../../tests/tables/conditions.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Manifests that every row has.
    world: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// Further manifests.
    given: String,
    /// Conditions by object, as `TYPE=STATUS REASON: WORDS`, in order; of every object that the row adds.
    says: BTreeMap<String, Vec<String>>,
    /// Requests to `web:80`: `PATH STATUS` or `PATH BACKEND`.
    #[serde(default)]
    still: Vec<String>,
}

#[test]
fn every_broken_object_says_so_and_leaves_the_others_in_force() {
    let table: Table = serde_saphyr::from_str(TABLE).expect("a table");
    let world = support::index(&table.world);
    let mut wrong = Vec::new();
    for row in &table.rows {
        let index = support::index(&format!("{}\n---\n{}", table.world, row.given));
        let own = index.reports().iter().filter(|(key, report)| world.reports().get(*key) != Some(report));
        let said: BTreeMap<String, Vec<String>> = own.map(|(k, r)| (k.to_string(), words(r))).collect();
        if said != row.says {
            wrong.push(format!("{}: says {said:#?}\n  instead of {:#?}", row.name, row.says));
        }
        let resources = &index.waypoints()[&Name::new("shop", "waypoint")];
        let frontends = resources.frontends.values().map(|frontend| (**frontend).clone()).collect();
        let (compiled, _) = Compiled::compile(&RouteConfig { frontends, destinations: Vec::new() });
        for want in &row.still {
            let path = want.split(' ').next().unwrap_or_default();
            let got = format!("{path} {}", sent(&compiled, path));
            if got != *want {
                wrong.push(format!("{}: {got} instead of {want}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let broken = table.rows.iter().filter(|row| row.says.values().flatten().any(|words| is_fault(words)));
    assert!(broken.count() >= 25, "too few rows");
}

/// As lint tells it.
#[test]
fn an_import_for_hosts_of_others_has_its_code() {
    let table: Table = serde_saphyr::from_str(TABLE).expect("a table");
    let row = table.rows.iter().find(|row| row.name == "a virtual service for what it does not own");
    let given = &row.expect("the row").given;
    let index = support::index(&format!("{}\n---\n{given}", table.world));
    let status = index.statuses().find(|one| one.object.to_string() == "VirtualService shop/grab");
    let standing = status.expect("a standing").standing;
    let Standing::NotEnforced(note) = &standing else { panic!("{standing}") };
    assert_eq!(note.reason, Some(Reason::ImportOutOfNamespace), "{note}");
}

fn is_fault(words: &str) -> bool {
    words.contains("=False") || words.contains("PartiallyInvalid")
}

fn words(report: &Report) -> Vec<String> {
    report.all().map(ToString::to_string).collect()
}

/// Where a request to `web:80` goes, or its status.
fn sent(table: &Compiled, path: &str) -> String {
    let service = ServiceKey::new("shop", "web.shop.svc.cluster.local");
    let headers: Vec<(String, String)> = Vec::new();
    let request = Request {
        method: "GET",
        scheme: Scheme::Http,
        authority: "web",
        port: 80,
        path,
        query: None,
        headers: &headers,
    };
    match table.select(&service, Some("shop"), &request).plan(&request, 0) {
        Plan::Answer(answer) => answer.status(false).to_string(),
        Plan::Forward(forward) => forward.target().map_or_else(
            || "web".to_owned(),
            |target| {
                target
                    .to_string()
                    .trim_start_matches("shop/")
                    .split('.')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            },
        ),
    }
}
