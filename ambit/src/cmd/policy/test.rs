//! `ambit policy test FILE`: rows of who calls whom, decided and compared with what they expect.
//!
//! The mesh is that of manifests (`-f`), with what a cluster would add to them, or else of the lab or cluster that runs.

use std::path::PathBuf;
use std::time::Duration;

use ambit_explain::{Compiled, Destination, Explanation, HttpQuestion, Question, Source, View, explain};
use ambit_runtime::clock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cmd::form::{FORMS, Form, List};
use crate::cmd::mesh::Mesh;
use crate::cmd::nodes::{cell, text};
use crate::cmd::objects::Objects;
use crate::out::{self, Failure};

/// Decides rows and compares.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A list of rows: `{name, from: NS/NAME, to: NS/NAME:PORT, method, path, host, headers, expect: allow|deny, code,
    /// policy, backend}`; only from, to and expect are required
    file: PathBuf,
    /// Manifests that make the mesh, files or folders; unset: those of the lab that runs
    #[arg(short = 'f', long = "manifests", value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Which rows make the exit code 79
    #[arg(long, value_enum, default_value = "fail")]
    fail_on: FailOn,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Those that fail
    Fail,
    /// None
    Never,
}

/// One row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: Option<String>,
    from: String,
    to: String,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    expect: Expect,
    code: Option<String>,
    policy: Option<String>,
    backend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

impl Args {
    /// Whether the objects are those of a mesh that runs.
    pub(super) fn asks_mesh(&self) -> bool {
        self.manifests.is_empty()
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or a row asks what nobody can be asked.
pub(super) fn run(at: &Mesh, args: &Args) -> anyhow::Result<i32> {
    let rows = rows(args)?;
    let objects =
        if args.asks_mesh() { super::objects(at)? } else { Objects::of_files(&args.manifests)?.staged()? };
    if let Some(told) = objects.not_decided_by() {
        out::say(&told);
    }
    let compiled = Compiled::of(&objects.index()?, "", Duration::from_secs(clock::unix_seconds()));
    let view = compiled.view();
    let mut items = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let question = row.question().map_err(|error| {
            Failure::new(out::BAD_DATA, format!("{}: row {number}: {error}", args.file.display()))
        })?;
        items.push(row.judge(&view, &question));
    }
    let failed = items.iter().filter(|item| item["result"] == "FAIL").count();
    let told = format!("{} of {} rows pass", items.len() - failed, items.len());
    List { kind: "PolicyTestList", items }
        .print(&args.output, table, |item| format!("row/{}", text(item, "name")));
    out::say(&told);
    let is_finding = failed > 0 && args.fail_on == FailOn::Fail;
    Ok(if is_finding { out::FINDINGS } else { out::OK })
}

fn rows(args: &Args) -> Result<Vec<Row>, Failure> {
    let bad = |why: String| Failure::new(out::BAD_DATA, format!("{}: {why}", args.file.display()));
    let text = std::fs::read_to_string(&args.file).map_err(|e| bad(e.to_string()))?;
    serde_saphyr::from_str(&text).map_err(|e| bad(e.to_string()))
}

impl Row {
    fn question(&self) -> Result<Question, ambit_explain::QuestionError> {
        let question = Question::new(self.from.parse::<Source>()?, self.to.parse::<Destination>()?);
        let asks_http = self.method.is_some() || self.path.is_some() || self.host.is_some();
        if !asks_http && self.headers.is_empty() {
            return Ok(question);
        }
        let usual = HttpQuestion::default();
        let http = HttpQuestion {
            method: self.method.clone().unwrap_or(usual.method),
            path: self.path.clone().unwrap_or(usual.path),
            host: self.host.clone(),
            headers: self.headers.clone().into_iter().collect(),
        };
        let question = question.with_http(http);
        question.check()?;
        Ok(question)
    }

    fn judge(&self, view: &View<'_>, question: &Question) -> Value {
        let found = explain(view, question);
        let got = Got::of(&found);
        let wanted = match self.expect {
            Expect::Allow => "allow",
            Expect::Deny => "deny",
        };
        let agrees = |wanted: &Option<String>, got: &str| wanted.as_ref().is_none_or(|wanted| wanted == got);
        let passes = wanted == got.verdict
            && agrees(&self.code, &got.code)
            && agrees(&self.policy, &got.policy)
            && self.backend.as_ref().is_none_or(|wanted| got.backends.iter().any(|one| one == wanted));
        let usual = || format!("{} -> {}", self.from, self.to);
        let expected: Vec<&str> =
            [Some(wanted), self.code.as_deref(), self.policy.as_deref(), self.backend.as_deref()]
                .into_iter()
                .flatten()
                .collect();
        let told = [got.verdict, &got.code, &got.policy].into_iter().filter(|text| !text.is_empty());
        let told: Vec<&str> = told.collect();
        json!({
            "result": if passes { "PASS" } else { "FAIL" },
            "name": self.name.clone().unwrap_or_else(usual),
            "from": self.from,
            "to": self.to,
            "expected": expected.join(" "),
            "got": told.join(" "),
            "nearest": found.nearest.as_ref().map(|nearest| nearest.sentence.clone()),
            "assumed": found.assumed,
        })
    }
}

/// What was decided, in the words of a row.
struct Got {
    verdict: &'static str,
    code: String,
    policy: String,
    backends: Vec<String>,
}

impl Got {
    fn of(found: &Explanation) -> Self {
        let route = found.route.as_ref();
        let backends = route.map(|route| route.backend.iter().chain(&route.others).cloned().collect());
        Self {
            verdict: if found.is_allow() { "allow" } else { "deny" },
            code: found.code().map(|reason| reason.code().to_owned()).unwrap_or_default(),
            policy: found.decided_by.as_ref().map(|by| by.policy.to_string()).unwrap_or_default(),
            backends: backends.unwrap_or_default(),
        }
    }
}

pub(in crate::cmd) fn table(items: &[Value], wide: bool) -> String {
    let mut keys = vec!["result", "name", "expected", "got"];
    let mut heading = vec!["RESULT", "NAME", "EXPECTED", "GOT"];
    if wide {
        keys.push("nearest");
        heading.push("NEAREST");
    }
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| keys.iter().map(|key| cell(item, key)).collect()).collect();
    out::table(&heading, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain manifests, as somebody has them in a repository: no address, no mark, no waypoint's pod.
    const SHOP: &str = include_str!("../../../../tests/cases/shop.yaml");

    #[track_caller]
    fn check(rows: &str, want: &[&str]) {
        let objects = Objects::of_text(SHOP).and_then(Objects::staged).unwrap();
        let compiled = Compiled::of(&objects.index().unwrap(), "", Duration::ZERO);
        let rows: Vec<Row> = serde_saphyr::from_str(rows).unwrap();
        let judged = rows.iter().map(|row| row.judge(&compiled.view(), &row.question().unwrap()));
        let told: Vec<String> =
            judged.map(|item| format!("{} {}", text(&item, "result"), text(&item, "got"))).collect();
        assert_eq!(told, want);
    }

    /// Beside what the mesh reads stands what it does not, as in any repository.
    #[test]
    fn other_kinds_are_not_in_the_way_and_what_makes_pods_makes_them() {
        let more = "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  template: {metadata: {labels: {app: db}}, spec: {serviceAccountName: db, containers: [{name: c, image: i}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: cart, namespace: shop}
spec: {template: {spec: {serviceAccountName: migrate, containers: [{name: c, image: i}]}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: shop}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: shop}
";
        let objects = Objects::of_text(&format!("{SHOP}{more}")).and_then(Objects::staged).unwrap();
        let told = objects.not_decided_by().unwrap();
        assert!(told.starts_with("2 objects passed over"), "{told}");
        assert!(told.contains("1 Ingress of networking.k8s.io/v1"), "{told}");
        let compiled = Compiled::of(&objects.index().unwrap(), "", Duration::ZERO);
        let rows = "
- {from: shop/db, to: 'shop/cart:80', expect: deny, code: AMB2104}
- {from: shop/web, to: 'shop/db:8080', expect: allow}
- {from: shop/cart-job, to: 'shop/cart:80', expect: deny, code: AMB2104}
";
        let rows: Vec<Row> = serde_saphyr::from_str(rows).unwrap();
        for row in rows {
            let item = row.judge(&compiled.view(), &row.question().unwrap());
            assert_eq!(item["result"], "PASS", "{item}");
        }
    }

    #[test]
    fn plain_manifests_are_judged_as_they_would_run() {
        check(
            "
- {from: shop/web, to: 'shop/cart:80', expect: allow, policy: shop/cart-from-web}
- {from: shop/batch, to: 'shop/cart:80', expect: deny, code: AMB2104}
- {from: shop/web, to: 'shop/cart:80', expect: deny}
- {from: shop/web, to: 'shop/cart:80', expect: allow, policy: shop/other}
",
            &[
                "PASS allow shop/cart-from-web",
                "PASS deny AMB2104",
                "FAIL allow shop/cart-from-web",
                "FAIL allow shop/cart-from-web",
            ],
        );
    }
}
