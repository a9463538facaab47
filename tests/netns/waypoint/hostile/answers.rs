//! The table of hostile answers: what their client sees, and that nobody else ever sees anything of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ambit_tests::lab::http_peer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HOST;
use crate::waypoint::shop::{OTHER, Shop, told};

const TABLE: &str = include_str!("../../../tables/hostile_answers.yaml");
/// What comes behind each answer, and nobody asked for.
const POISON: &str = "HTTP/1.1 299 Poisoned\r\nContent-Length: 0\r\n\r\n";
/// Fewest rows that the table has to have.
const ROWS_MIN: usize = 40;
/// Most interim answers that are passed on.
const INTERIM_MAX: usize = 8;
/// How often the whole table is sent while others are served.
const TIMES: usize = 3;
/// Requests a second of the others.
const RATE: &str = "200";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    answer: Vec<Part>,
    want: Vec<u16>,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    close: bool,
    /// Nothing comes behind it.
    #[serde(default)]
    alone: bool,
    /// What comes of it has no end.
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    lacks: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Once(String),
    Times(String, usize),
}

fn get() -> String {
    "GET".to_owned()
}

fn hexadecimal(text: &str) -> String {
    text.chars().fold(String::new(), |mut all, c| {
        // Writing to a String does not fail.
        let _ = write!(all, "{:02x}", u32::from(c));
        all
    })
}

impl Row {
    fn request(&self, number: usize) -> Value {
        let mut parts: Vec<String> = Vec::new();
        for part in &self.answer {
            match part {
                Part::Once(text) => parts.push(hexadecimal(text)),
                Part::Times(text, times) => parts.push(format!("{}*{times}", hexadecimal(text))),
            }
        }
        if !self.alone {
            parts.push(hexadecimal(POISON));
        }
        let close = if self.close { "x-peer-close: 1\r\n" } else { "" };
        let send = format!(
            "{} /row{number} HTTP/1.1\r\nHost: {HOST}\r\nx-peer-answer: {}\r\n{close}Connection: close\r\n\r\n",
            self.method,
            parts.join(" ")
        );
        let is_head = self.method == "HEAD";
        json!({"address": format!("{HOST}:80"), "send": send, "is_head": is_head, "wait_ms": 5000})
    }

    fn problem(&self, seen: &Value) -> Option<String> {
        let statuses: Vec<u16> = serde_json::from_value(seen["statuses"].clone()).unwrap_or_default();
        let interim = statuses.iter().filter(|status| **status < 200).count();
        let last: Vec<u16> = statuses.into_iter().filter(|status| *status >= 200).collect();
        let text = seen["told"].as_str().unwrap_or_default().to_lowercase();
        let kept = self.lacks.iter().find(|lacks| text.contains(*lacks));
        let is_wanted = match *last {
            [] => self.want.contains(&0),
            [status] => self.want.contains(&status),
            [..] => false,
        };
        let is_right = is_wanted
            && !(self.cut && text.ends_with("\r\n0\r\n\r\n"))
            && interim <= INTERIM_MAX
            && kept.is_none()
            && !text.contains("poisoned")
            && (seen["end"] == "closed" || seen["end"] == "reset");
        (!is_right)
            .then(|| format!("{}: wanted one of {:?} without {kept:?}, got {seen}", self.name, self.want))
    }
}

/// Sends the table from one pod while another is served by the same upstream.
pub(super) fn poison_nobody(shop: &Shop) {
    let table: Table = serde_saphyr::from_str(TABLE).expect("the table has the form its head describes");
    assert!(table.rows.len() >= ROWS_MIN, "{} rows", table.rows.len());
    drop(super::told(shop, "/told/reset"));
    let calm = shop.begin_load(
        &format!("http://{HOST}/calm"),
        &["--duration", "8s", "--rate", RATE, "--concurrency", "4"],
    );
    let rows: Vec<Value> = table.rows.iter().enumerate().map(|(number, row)| row.request(number)).collect();
    let file = shop.lab.file("answers.json", &Value::from(rows).to_string());
    let mut wrong = Vec::new();
    for _ in 0..TIMES {
        let command = [&*http_peer(), "bytes", "--file", &file, "--concurrency", "2"];
        let output = shop.lab.spawn(OTHER, &command).finish(Duration::from_secs(85)).ok();
        let seen: Vec<Value> = serde_json::from_str(&output).expect("JSON from http-peer");
        wrong.extend(table.rows.iter().zip(&seen).filter_map(|(row, seen)| row.problem(seen)));
    }
    wrong.extend(used_again(shop, &table));
    let calm = told(&calm.finish(Duration::from_secs(60)));
    if calm.count("/by_status/200") != calm.count("/sent") || calm.count("/sent") == 0 {
        wrong.push(format!("another client saw something of it: {:#}", calm.0));
    }
    assert!(wrong.is_empty(), "{} wrong of {} rows:\n{}", wrong.len(), table.rows.len(), wrong.join("\n"));
    println!(
        "{} hostile answers, {} times, beside {} calm requests",
        table.rows.len(),
        TIMES,
        calm.count("/sent")
    );
}

/// Connections to the upstream that were used again behind an answer with something behind it.
fn used_again(shop: &Shop, table: &Table) -> Vec<String> {
    let told = super::told(shop, "/told");
    let mut spoiled: BTreeMap<u64, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for request in told["requests"].as_array().into_iter().flatten() {
        let (connection, head) = (
            request["connection"].as_u64().unwrap_or_default(),
            request["head"].as_str().unwrap_or_default(),
        );
        if let Some(by) = spoiled.get(&connection) {
            wrong.push(format!("the connection was used again behind: {by}"));
        }
        let path = head.split(' ').nth(1).and_then(|path| path.strip_prefix("/row"));
        if let Some(row) = path.and_then(|number| table.rows.get(number.parse::<usize>().ok()?)) {
            spoiled.insert(connection, &row.name);
        }
    }
    wrong
}
