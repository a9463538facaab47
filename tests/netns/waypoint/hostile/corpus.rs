//! The table of hostile requests, from a pod of another namespace through its ztunnel to a service of the waypoint.

use std::time::Duration;

use ambit_tests::lab::http_peer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{HOST, answers, told, wild};
use crate::waypoint::shop::{OTHER, Shop};

const TABLE: &str = include_str!("../../../tables/hostile_http.yaml");
/// Longest time for all rows.
const PATIENCE: Duration = Duration::from_secs(85);
/// The last frame of a message.
const END_STREAM: u8 = 1;
/// Fewest rows that the table has to have.
const ROWS_MIN: usize = 120;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    http1: Vec<Text>,
    http2: Vec<Frames>,
}

/// A row of HTTP/1.1.
#[derive(Debug, Deserialize)]
struct Text {
    name: String,
    send: String,
    #[serde(default)]
    want: Statuses,
    #[serde(default)]
    stays: bool,
    #[serde(default)]
    head: bool,
    #[serde(flatten)]
    upstream: Upstream,
}

/// What reached the upstream.
#[derive(Debug, Deserialize)]
struct Upstream {
    #[serde(default)]
    reaches: usize,
    /// It may have been reached or not.
    #[serde(default)]
    any: bool,
    #[serde(default)]
    sees: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

/// Statuses of all answers, or several such lists of which one is right.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Statuses {
    These(Vec<u16>),
    OneOf(Vec<Vec<u16>>),
}

/// A row of HTTP/2.
#[derive(Debug, Deserialize)]
struct Frames {
    name: String,
    #[serde(default)]
    head: Vec<[String; 2]>,
    /// Further fields of one letter's length.
    #[serde(default)]
    fields: usize,
    body: Option<String>,
    #[serde(default)]
    trailers: Vec<[String; 2]>,
    /// The head does not end the message, even if nothing else follows.
    #[serde(default)]
    open: bool,
    #[serde(default)]
    frames: Vec<(u8, u8, u32, String)>,
    want: Vec<String>,
    #[serde(flatten)]
    upstream: Upstream,
}

impl Default for Statuses {
    fn default() -> Self {
        Self::These(vec![400])
    }
}

impl Statuses {
    fn has(&self, seen: &[u16]) -> bool {
        match self {
            Self::These(all) => all == seen,
            Self::OneOf(lists) => lists.iter().any(|list| list == seen),
        }
    }
}

/// A text with the row's own path and the host in their places.
fn filled(text: &str, path: &str) -> String {
    text.replace("$P", path).replace("$H", HOST)
}

fn pairs(fields: &[[String; 2]], path: &str) -> Vec<[String; 2]> {
    fields.iter().map(|pair| pair.each_ref().map(|text| filled(text, path))).collect()
}

impl Text {
    fn request(&self, path: &str) -> Value {
        json!({"address": format!("{HOST}:80"), "send": filled(&self.send, path), "is_head": self.head})
    }

    fn problem(&self, seen: &Value) -> Option<String> {
        let statuses: Vec<u16> = serde_json::from_value(seen["statuses"].clone()).unwrap_or_default();
        // An end by reset is one too: bytes may have come that nobody reads any more.
        let is_closed = seen["end"] == "closed" || seen["end"] == "reset";
        let is_right = self.want.has(&statuses) && is_closed != self.stays;
        (!is_right).then(|| format!("wanted {:?}, got {seen}", self.want))
    }
}

impl Frames {
    fn request(&self, path: &str) -> Value {
        let mut frames = Vec::new();
        let is_all = self.body.is_none() && self.trailers.is_empty() && !self.open;
        let end = |is_last: bool| if is_last { END_STREAM } else { 0 };
        if !self.head.is_empty() {
            let mut head = pairs(&self.head, path);
            head.extend((0..self.fields).map(|n| [format!("x-{n}"), "1".to_owned()]));
            frames.push(json!({"head": head, "flags": end(is_all), "stream": 1}));
        }
        if let Some(body) = &self.body {
            let flags = end(self.trailers.is_empty());
            frames.push(json!({"kind": 0, "flags": flags, "stream": 1, "payload": filled(body, path)}));
        }
        if !self.trailers.is_empty() {
            let head = pairs(&self.trailers, path);
            frames.push(json!({"head": head, "flags": END_STREAM, "stream": 1}));
        }
        for (kind, flags, stream, payload) in &self.frames {
            let payload = filled(payload, path);
            frames.push(json!({"kind": kind, "flags": flags, "stream": stream, "payload": payload}));
        }
        json!({"address": format!("{HOST}:80"), "frames": frames})
    }

    fn problem(&self, seen: &Value) -> Option<String> {
        // Numbers of any kind, and whatever else is there, as text.
        let is = |value: &Value, want: &str| {
            let text = value.to_string();
            text == want
        };
        let is_one = |want: &String| match want.split_once(' ') {
            Some(("rst", code)) => is(&seen["resets"]["1"], code),
            Some(("goaway", code)) => {
                let is_over = seen["end"] == "closed" || seen["end"] == "reset";
                is(&seen["goaway"], code) && is_over
            }
            Some(_) | None => is(&seen["statuses"]["1"], want),
        };
        (!self.want.iter().any(is_one)).then(|| format!("wanted one of {:?}, got {seen}", self.want))
    }
}

impl Upstream {
    /// What is not as it should be of the heads that reached the upstream.
    fn problem(&self, heads: &[&str]) -> Option<String> {
        if !self.any && heads.len() != self.reaches {
            return Some(format!(
                "{} requests instead of {} reached the upstream: {heads:#?}",
                heads.len(),
                self.reaches
            ));
        }
        let lower: Vec<String> = heads.iter().map(|head| head.to_lowercase()).collect();
        let lost = self.sees.iter().find(|text| !lower.iter().all(|head| head.contains(*text)));
        let kept = self.lacks.iter().find(|text| lower.iter().any(|head| head.contains(*text)));
        (lost.is_some() || kept.is_some())
            .then(|| format!("the upstream did not see {lost:?}, or saw {kept:?}: {heads:#?}"))
    }
}

/// What is wrong with any head that a waypoint may pass on: one host, one framing, no bytes that end a line.
fn doubtful(head: &str) -> Option<&'static str> {
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    if line.split(' ').count() != 3 || !line.ends_with(" HTTP/1.1") {
        return Some("its first line");
    }
    if !head.chars().all(|c| matches!(c, ' '..='~' | '\r' | '\n' | '\t' | '\u{80}'..='\u{ff}')) {
        return Some("a control byte");
    }
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return Some("half a line end");
    }
    let names: Vec<String> = lines.map(|l| l.split(':').next().unwrap_or_default().to_lowercase()).collect();
    let count = |name: &str| names.iter().filter(|is| *is == name).count();
    if count("host") != 1 {
        return Some("its hosts");
    }
    if count("content-length") + count("transfer-encoding") > 1 {
        return Some("its framing");
    }
    let is_name =
        |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (!names.iter().all(is_name)).then_some("a name")
}

#[test]
fn two_readings_of_a_message_reach_nobody_and_poison_nobody() {
    let Some(shop) = Shop::up("wp-hostile", &wild()) else { return };
    requests(&shop);
    answers::poison_nobody(&shop);
}

fn requests(shop: &Shop) {
    let table: Table = serde_saphyr::from_str(TABLE).expect("the table has the form its head describes");
    let path = |row: usize| format!("/h{row}-");
    let first: Vec<Value> = table.http1.iter().enumerate().map(|(n, row)| row.request(&path(n))).collect();
    let count = first.len();
    let second = table.http2.iter().enumerate().map(|(n, row)| row.request(&path(count + n)));
    let rows: Vec<Value> = first.into_iter().chain(second).collect();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let file = shop.lab.file("hostile.json", &Value::from(rows).to_string());
    let output = shop.lab.spawn(OTHER, &[&*http_peer(), "bytes", "--file", &file]).finish(PATIENCE).ok();
    let seen: Vec<Value> = serde_json::from_str(&output).expect("JSON from http-peer");

    let told = told(shop, "/told");
    let heads: Vec<&str> =
        told["requests"].as_array().into_iter().flatten().filter_map(|one| one["head"].as_str()).collect();
    let of = |row: usize| -> Vec<&str> {
        let path = path(row);
        heads.iter().copied().filter(|head| head.contains(&path)).collect()
    };
    let names = table.http1.iter().map(|row| (&row.name, &row.upstream));
    let names = names.chain(table.http2.iter().map(|row| (&row.name, &row.upstream)));
    let mut wrong = Vec::new();
    for (row, (name, upstream)) in names.enumerate() {
        let problem = match row.checked_sub(count) {
            None => table.http1[row].problem(&seen[row]),
            Some(row2) => table.http2[row2].problem(&seen[row]),
        };
        let version = if row < count { "HTTP/1.1" } else { "HTTP/2" };
        wrong.extend(
            problem
                .into_iter()
                .chain(upstream.problem(&of(row)))
                .map(|what| format!("{version}, {name}: {what}")),
        );
    }
    for head in &heads {
        wrong.extend(doubtful(head).map(|what| format!("{what} was passed on: {head:?}")));
        if !head.contains(" /h") {
            wrong.push(format!("of no row: {head:?}"));
        }
    }
    if told["broken"] != 0 {
        wrong.push(format!("{} connections to the upstream ended within something", told["broken"]));
    }
    assert!(wrong.is_empty(), "{} wrong of {} rows:\n{}", wrong.len(), seen.len(), wrong.join("\n"));
    println!("{} hostile requests, {} of them answered by the upstream", seen.len(), heads.len());
}
