//! An edge by its id, as `ambit edges` prints it: which record tells of its pair.
//!
//! An id names controllers (`shop/web>shop/db:5432`), and so do records where discovery knows them. Of another record the
//! pod stands for its controller if it has its name, or that with what a controller puts behind it; where none does, any
//! pod whose name begins so.

use serde_json::Value;

use super::is_refused;
use crate::cmd::cluster::Query;
use crate::cmd::nodes::text;

/// Letters of which controllers make the ends of names.
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";
/// How an id names who is no workload.
const OUTSIDE: &str = "outside";

/// An edge's id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edge<'t> {
    source: End<'t>,
    destination: End<'t>,
    port: &'t str,
}

/// One end of an edge.
#[derive(Debug, PartialEq, Eq)]
enum End<'t> {
    Outside,
    Workload {
        namespace: &'t str,
        name: &'t str,
    },
    /// The host of a service, or an address.
    Addressed(&'t str),
}

/// How sure it is that a record is of an edge; the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    /// By name.
    Named,
    /// By what a controller calls its pods.
    Generated,
    /// By how the name begins.
    Begins,
}

impl<'t> Edge<'t> {
    /// Reads `NS/NAME>NS/NAME:PORT`, with `outside` for an end that is no workload and a host or an address for a
    /// destination that was addressed by it; none if it is no edge's id.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let (source, rest) = text.split_once('>')?;
        let (destination, port) = rest.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let source = match End::parse(source)? {
            End::Addressed(_) => return None,
            end @ (End::Outside | End::Workload { .. }) => end,
        };
        Some(Self { source, destination: End::parse(destination)?, port })
    }

    /// A query that every record of the pair passes, and others of the same namespaces too: a pod's name is not known from
    /// that of its controller.
    pub(super) fn query(&self) -> Query {
        let ends = [("from-namespace", &self.source), ("to-namespace", &self.destination)];
        let named = ends.into_iter().filter_map(|(key, end)| match end {
            End::Workload { namespace, .. } => Some((key.to_owned(), (*namespace).to_owned())),
            End::Outside | End::Addressed(_) => None,
        });
        named.collect()
    }

    /// The record of the pair that is worth explaining: of those that are surest the last refusal, else the last one.
    /// `records` are oldest first.
    pub(super) fn record<'r>(&self, records: &'r [Value]) -> Option<&'r Value> {
        let found = records.iter().filter_map(|record| Some((self.is_of(record)?, record)));
        let found: Vec<(Sure, &Value)> = found.collect();
        let surest = found.iter().map(|(sure, _)| *sure).min()?;
        let last = || found.iter().rev().filter(|(sure, _)| *sure == surest).map(|(_, record)| *record);
        last().find(|record| is_refused(record)).or_else(|| last().next())
    }

    fn is_of(&self, record: &Value) -> Option<Sure> {
        // What a waypoint opens for somebody is part of that one's edge, which has a record of its own.
        if !text(record, "client").is_empty() {
            return None;
        }
        let addresses = [text(record, "hbone_addr"), text(&record["dst"], "addr")];
        let mut dialled = addresses.iter().filter_map(|address| address.rsplit_once(':'));
        dialled.find(|(_, port)| *port == self.port)?;
        let source = self.source.is(&record["src"])?;
        let destination = match &self.destination {
            End::Addressed(name) => {
                let mut ips = addresses.iter().filter_map(|address| address.rsplit_once(':'));
                let is_it = text(record, "service") == *name || ips.any(|(ip, _)| ip == *name);
                is_it.then_some(Sure::Named)?
            }
            end @ (End::Outside | End::Workload { .. }) => end.is(&record["dst"])?,
        };
        Some(source.max(destination))
    }
}

impl<'t> End<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        match text.split_once('/') {
            _ if text.is_empty() => None,
            None if text == OUTSIDE => Some(Self::Outside),
            None => Some(Self::Addressed(text)),
            Some((namespace, name)) if namespace.is_empty() || name.is_empty() || name.contains('/') => None,
            Some((namespace, name)) => Some(Self::Workload { namespace, name }),
        }
    }

    fn is(&self, end: &Value) -> Option<Sure> {
        let pod = text(end, "workload");
        match self {
            Self::Outside => pod.is_empty().then_some(Sure::Named),
            Self::Addressed(_) => None,
            Self::Workload { namespace, .. } if text(end, "namespace") != *namespace => None,
            Self::Workload { name, .. } => match text(end, "controller") {
                none if none.is_empty() => of_pod(&pod, name),
                controller => (controller == *name || pod == *name).then_some(Sure::Named),
            },
        }
    }
}

fn of_pod(pod: &str, name: &str) -> Option<Sure> {
    let rest = pod.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(Sure::Named);
    }
    let rest = rest.strip_prefix('-')?;
    let is_generated = |part: &str| part.chars().all(|c| GENERATED.contains(c));
    let is_ordinal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let generated = match rest.rsplit_once('-') {
        None => is_ordinal(rest) || (rest.len() == 5 && is_generated(rest)),
        Some((hash, last)) => {
            (1..=10).contains(&hash.len()) && is_generated(hash) && last.len() == 5 && is_generated(last)
        }
    };
    Some(if generated { Sure::Generated } else { Sure::Begins })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ambit_runtime::flows::Filter;
    use serde_json::json;

    use super::*;

    fn record(id: &str, from: &str, to: &str, verdict: &str) -> Value {
        json!({
            "conn_id": id, "verdict": verdict, "hbone_addr": "10.0.0.2:5432", "service": "db.shop.svc.cluster.local",
            "src": {"namespace": "shop", "workload": from, "addr": "10.0.0.1:40000"},
            "dst": {"namespace": "shop", "workload": to, "addr": "10.0.0.2:15008"}, "client": null,
        })
    }

    #[track_caller]
    fn told(edge: &str, records: &[Value]) -> Option<String> {
        Edge::parse(edge).expect("an edge").record(records).map(|record| text(record, "conn_id"))
    }

    #[test]
    fn ids_are_read_and_nothing_else() {
        for id in ["shop/web>shop/db:5432", "outside>shop/db:80", "shop/web>fd00::1:80", "shop/web>db.shop:1"]
        {
            assert!(Edge::parse(id).is_some(), "{id}");
        }
        for text in
            ["last", "shop/web", "shop/web>shop/db", "shop/web>:80", "web>shop/db:80", "a/b>c/d:x", ">a/b:1"]
        {
            assert_eq!(Edge::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_refusal_of_the_pair_is_told_else_its_last_record() {
        let mut records = vec![
            record("1", "web-7c9d8f6b5-x2x4z", "db-0", "allowed"),
            record("2", "web-7c9d8f6b5-x2x4z", "db-0", "denied"),
            record("3", "web", "db-1", "allowed"),
            record("4", "web", "cart", "denied"),
        ];
        records[2]["src"]["namespace"] = json!("other");
        assert_eq!(told("shop/web>shop/db:5432", &records).as_deref(), Some("2"));
        assert_eq!(told("shop/web>db.shop.svc.cluster.local:5432", &records).as_deref(), Some("4"));
        assert_eq!(told("shop/web>shop/db:80", &records), None);
        records.remove(1);
        assert_eq!(told("shop/web>shop/db:5432", &records).as_deref(), Some("1"));
        assert_eq!(told("outside>shop/db:5432", &records), None);
        records[0]["src"]["workload"] = Value::Null;
        assert_eq!(told("outside>shop/db:5432", &records).as_deref(), Some("1"));
    }

    #[test]
    fn the_query_of_an_edge_is_passed_by_its_records() {
        let records = [record("1", "web-7c9d8f6b5-x2x4z", "db-0", "denied")];
        for id in ["shop/web>shop/db:5432", "shop/web>db.shop.svc.cluster.local:5432"] {
            let query = Edge::parse(id).expect("an edge").query();
            assert_eq!(query.get("from-namespace").map(String::as_str), Some("shop"), "{id}");
            let filter = Filter::from_query(&query, SystemTime::UNIX_EPOCH).expect("a filter");
            assert!(filter.passes(&records[0]), "{query:?}");
            assert_eq!(told(id, &records).as_deref(), Some("1"));
        }
        assert_eq!(Edge::parse("outside>db:80").expect("an edge").query(), Query::new());
    }

    #[test]
    fn a_workload_whose_name_only_begins_so_is_another() {
        let records = [record("1", "web-x2x4z", "db", "allowed"), record("2", "web-admin", "db", "denied")];
        assert_eq!(told("shop/web>shop/db:5432", &records).as_deref(), Some("1"));
        // Where nothing else is there, it is better than nothing: pods may be called as somebody likes.
        assert_eq!(told("shop/web>shop/db:5432", &records[1..]).as_deref(), Some("2"));
        // Where it is known whose pod it is, names are not guessed.
        let mut owned = record("2", "web-admin", "db", "denied");
        owned["src"]["controller"] = json!("web-admin");
        assert_eq!(told("shop/web>shop/db:5432", std::slice::from_ref(&owned)), None);
        owned["src"]["controller"] = json!("web");
        assert_eq!(told("shop/web>shop/db:5432", &[owned]).as_deref(), Some("2"));
        let behind = Value::from("spiffe://cluster.local/ns/shop/sa/web");
        let mut leg = record("3", "web", "db", "denied");
        leg["client"] = behind;
        assert_eq!(told("shop/web>shop/db:5432", &[leg]), None, "a waypoint's own leg");
    }
}
