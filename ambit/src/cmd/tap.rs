//! `ambit tap`: connections and requests as they happen, with both identities; never what they carry.
//!
//! That a connection is open, and what it moves, is asked for twice a second; how it ended, and each request, is told by
//! the proxy at once. One that begins and ends in between is seen by its end only; in a cluster every one is, since what is
//! open is known on the nodes alone.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_runtime::flows::Filter;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::flows::filters::Filters;
use super::flows::{end, followed};
use super::interrupted;
use super::mesh::Mesh;
use super::nodes::{Node, ask_all, block_on, or_dash, read, short_id, text};
use crate::out;

/// How often open connections are asked for.
const LOOK: Duration = Duration::from_millis(500);

/// Shows connections and requests as they happen.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Mesh,
    #[command(flatten)]
    filters: Filters,
    /// Only this destination, a pod or a service (NAME or NS/NAME)
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    max: Option<usize>,
    /// table, wide (identities too) or json (one object a line)
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
}

/// Runs the command until nobody reads, it is interrupted, or enough was shown.
///
/// # Errors
/// When no node answers, or a filter is none.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let filter = args.filters.filter()?;
    let nodes = args.at.here().map(|lab| lab.nodes()).transpose()?;
    interrupted::ends_the_command()?;
    block_on(async {
        let mut records = followed(&args.at, &filter, 0).await?;
        if nodes.is_none() {
            out::say("ends and requests alone are shown: what is open is known on the nodes of a cluster");
        }
        let (is_lab, nodes) = (nodes.is_some(), nodes.unwrap_or_default());
        let mut open = Open::default();
        let mut look = tokio::time::interval(LOOK);
        let mut shown = 0;
        while args.max.is_none_or(|max| shown < max) {
            let happened = tokio::select! {
                record = records.recv() => match record {
                    Some(record) => vec![open.ended(record)],
                    None => return Ok(out::OK),
                },
                _ = look.tick(), if is_lab => open.look(&nodes).await?,
            };
            let meant = happened.iter().filter(|one| is_meant(args, &filter, one));
            let room = args.max.map_or(usize::MAX, |max| max - shown);
            for one in meant.take(room) {
                out::data(&line(args.output, one));
                shown += 1;
            }
        }
        Ok(out::OK)
    })
}

fn is_meant(args: &Args, filter: &Filter, one: &Value) -> bool {
    let to = |wanted: &String| {
        let (name, namespace) = (text(&one["dst"], "workload"), text(&one["dst"], "namespace"));
        let service = text(one, "service");
        let mut labels = service.split('.');
        let (service, of) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
        *wanted == name
            || *wanted == format!("{namespace}/{name}")
            || *wanted == service
            || *wanted == format!("{of}/{service}")
    };
    filter.passes(one) && args.to.as_ref().is_none_or(to)
}

/// What is open, by id and direction, with what it has moved.
#[derive(Debug, Default)]
struct Open {
    moved: BTreeMap<(String, String), (u64, u64)>,
    has_looked: bool,
}

impl Open {
    /// Connections that are new, and those that moved something.
    async fn look(&mut self, nodes: &[Node]) -> anyhow::Result<Vec<Value>> {
        let mut now = Vec::new();
        for (node, body) in ask_all(nodes, "/connections").await? {
            let list = read(&body, &node.socket)?;
            now.extend(list.as_array().into_iter().flatten().cloned().map(|mut one| {
                one["node"] = json!(node.name);
                one
            }));
        }
        Ok(self.differ(now))
    }

    fn differ(&mut self, now: Vec<Value>) -> Vec<Value> {
        let mut moved = BTreeMap::new();
        let mut happened = Vec::new();
        for mut one in now {
            let bytes = (number(&one, "bytes_sent"), number(&one, "bytes_recv"));
            let before = self.moved.get(&key(&one));
            let event = match before {
                // What was open before is nothing that happened now.
                None => self.has_looked.then_some("open"),
                Some(before) => (*before != bytes).then_some("data"),
            };
            moved.insert(key(&one), bytes);
            if let Some(event) = event {
                one["event"] = json!(event);
                happened.push(one);
            }
        }
        (self.moved, self.has_looked) = (moved, true);
        happened
    }

    /// A record as what happened.
    fn ended(&mut self, mut record: Value) -> Value {
        let event = if record["http"].is_object() { "request" } else { "end" };
        if event == "end" {
            self.moved.remove(&key(&record));
        }
        record["event"] = json!(event);
        record
    }
}

fn key(one: &Value) -> (String, String) {
    (text(one, "conn_id"), text(one, "direction"))
}

fn number(one: &Value, key: &str) -> u64 {
    one[key].as_u64().unwrap_or(0)
}

fn line(output: Output, one: &Value) -> String {
    if output == Output::Json {
        return one.to_string();
    }
    let event = text(one, "event");
    let (source, destination) = (end(&one["src"]), end(&one["dst"]));
    let mut line = format!(
        "{event:<7} id={} {} {} -> {} path={}",
        short_id(one),
        or_dash(text(one, "direction")),
        or_dash(source),
        or_dash(destination),
        text(one, "path"),
    );
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            line.push_str(&format!(" {key}={value}"));
        }
    };
    if output == Output::Wide {
        add("node", text(one, "node"));
        add("src.identity", text(&one["src"], "identity"));
        add("dst.identity", text(&one["dst"], "identity"));
        add("service", text(one, "service"));
    }
    let http = &one["http"];
    for (key, field) in [("method", "method"), ("uri", "path"), ("status", "status")] {
        add(key, text(http, field));
    }
    match &*event {
        "open" => {}
        "data" => {
            add("sent", text(one, "bytes_sent"));
            add("received", text(one, "bytes_recv"));
        }
        _ => {
            for (key, field) in [
                ("verdict", "verdict"),
                ("code", "code"),
                ("policy", "policy"),
                ("sent", "bytes_sent"),
                ("received", "bytes_recv"),
                ("ms", "duration_ms"),
            ] {
                add(key, text(one, field));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: &str, sent: u64) -> Value {
        json!({"conn_id": id, "direction": "outbound", "bytes_sent": sent, "bytes_recv": 0, "path": "hbone"})
    }

    fn events(happened: &[Value]) -> Vec<(String, String)> {
        happened.iter().map(|one| (text(one, "event"), text(one, "conn_id"))).collect()
    }

    #[test]
    fn what_is_new_or_moves_is_told_and_what_was_there_before_is_not() {
        let mut open = Open::default();
        assert_eq!(open.differ(vec![connection("a", 1)]), Vec::<Value>::new());
        let happened = open.differ(vec![connection("a", 1), connection("b", 1)]);
        assert_eq!(events(&happened), [("open".to_owned(), "b".to_owned())]);
        let happened = open.differ(vec![connection("a", 2), connection("b", 1)]);
        assert_eq!(events(&happened), [("data".to_owned(), "a".to_owned())]);
        let ended = open.ended(connection("b", 1));
        assert_eq!(ended["event"], "end");
        let request = open.ended(json!({"conn_id": "c", "http": {"method": "GET"}}));
        assert_eq!(request["event"], "request");
    }

    #[test]
    fn a_line_has_identities_only_when_asked() {
        let mut one = connection("0123456789abcdef", 5);
        one["event"] = json!("data");
        one["src"] = json!({"workload": "web", "namespace": "shop", "identity": "spiffe://m/ns/shop/sa/web"});
        assert!(line(Output::Wide, &one).contains("src.identity=spiffe://m/ns/shop/sa/web"));
        let short = line(Output::Table, &one);
        assert!(short.starts_with("data    id=0123456789ab outbound shop/web -> - path=hbone"), "{short}");
        assert!(!short.contains("spiffe") && short.ends_with("sent=5 received=0"), "{short}");
    }
}
