//! Flags that say which records are meant, in the words of Hubble where it has them.

use std::collections::BTreeMap;

use ambit_runtime::clock;
use ambit_runtime::flows::Filter;
use ambit_types::Reason;
use clap::{Args, ValueEnum};

use crate::out::{self, Failure};

/// Which records are meant; all flags given must agree, and several values of one are alternatives.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filters {
    /// Only this namespace, at either end
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// All namespaces, which is the default here
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only from this namespace
    #[arg(long, value_name = "NS")]
    from_namespace: Option<String>,
    /// Only to this namespace
    #[arg(long, value_name = "NS")]
    to_namespace: Option<String>,
    /// Only with this pod at either end (POD, NS/POD, or POD* for names that begin so)
    #[arg(long)]
    pod: Option<String>,
    /// Only from this pod
    #[arg(long, value_name = "POD")]
    from_pod: Option<String>,
    /// Only to this pod
    #[arg(long, value_name = "POD")]
    to_pod: Option<String>,
    /// Only with a pod of this controller at either end (NAME, NS/NAME, or NAME* for names that begin so)
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Only from pods of this controller
    #[arg(long, value_name = "NAME")]
    from_workload: Option<String>,
    /// Only to pods of this controller
    #[arg(long, value_name = "NAME")]
    to_workload: Option<String>,
    /// Only with this cluster at either end
    #[arg(long)]
    cluster: Option<String>,
    /// Only from this cluster
    #[arg(long, value_name = "CLUSTER")]
    from_cluster: Option<String>,
    /// Only to this cluster
    #[arg(long, value_name = "CLUSTER")]
    to_cluster: Option<String>,
    /// Only with this address at either end
    #[arg(long)]
    ip: Option<String>,
    /// Only from this address
    #[arg(long, value_name = "IP")]
    from_ip: Option<String>,
    /// Only to this address
    #[arg(long, value_name = "IP")]
    to_ip: Option<String>,
    /// Only with this port at either end
    #[arg(long)]
    port: Option<String>,
    /// Only from this port
    #[arg(long, value_name = "PORT")]
    from_port: Option<String>,
    /// Only to this port
    #[arg(long, value_name = "PORT")]
    to_port: Option<String>,
    /// Only with this identity at either end (spiffe://…, or its beginning and *)
    #[arg(long)]
    identity: Option<String>,
    /// Only from this identity
    #[arg(long, value_name = "IDENTITY")]
    from_identity: Option<String>,
    /// Only to this identity
    #[arg(long, value_name = "IDENTITY")]
    to_identity: Option<String>,
    /// Only to this service (NAME, NS/NAME or its whole host name)
    #[arg(long = "service", visible_alias = "to-service")]
    service: Option<String>,
    /// Only this verdict
    #[arg(long)]
    verdict: Option<Verdict>,
    /// Only this code or reason
    #[arg(long, value_delimiter = ',')]
    code: Vec<Reason>,
    /// Only decided by this policy (NS/NAME)
    #[arg(long)]
    policy: Option<String>,
    /// Only carried so: local, hbone, waypoint, plaintext, probe or passthrough
    #[arg(long)]
    via: Option<String>,
    /// Only this protocol: tcp (connections), http (requests) or a version of it such as http/2
    #[arg(long)]
    protocol: Option<String>,
    /// Only over TLS
    #[arg(long, conflicts_with = "unencrypted")]
    encrypted: bool,
    /// Only without TLS
    #[arg(long)]
    unencrypted: bool,
    /// Only this direction: inbound or outbound
    #[arg(long)]
    direction: Option<String>,
    /// Only this connection's id, or its beginning and *
    #[arg(long)]
    id: Option<String>,
    /// Only requests with this method
    #[arg(long = "method", visible_alias = "http-method")]
    method: Option<String>,
    /// Only requests for this path, or its beginning and *
    #[arg(long = "path", visible_alias = "http-path")]
    path: Option<String>,
    /// Only requests answered with this status, or its beginning and *
    #[arg(long = "status", visible_alias = "http-status")]
    status: Option<String>,
    /// Only requests of this trace
    #[arg(long)]
    trace_id: Option<String>,
    /// Only since then (a time, or how long ago such as 5m)
    #[arg(long)]
    since: Option<String>,
    /// Only until then
    #[arg(long)]
    until: Option<String>,
    /// Only what does not agree with FILTER=VALUE, such as from-pod=shop/web; may be repeated
    #[arg(long, value_name = "FILTER=VALUE")]
    not: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Allowed,
    Denied,
}

impl Filters {
    /// The filter that the flags make.
    ///
    /// # Errors
    /// A failure with exit code 64 that names what is no filter.
    pub(crate) fn filter(&self) -> Result<Filter, Failure> {
        let usage = |text: String| Failure::new(out::USAGE, text);
        let query = self.query().map_err(usage)?;
        Filter::from_query(&query, clock::wall()).map_err(|error| usage(error.to_string()))
    }

    fn query(&self) -> Result<BTreeMap<String, String>, String> {
        let texts = [
            ("namespace", &self.namespace),
            ("from-namespace", &self.from_namespace),
            ("to-namespace", &self.to_namespace),
            ("pod", &self.pod),
            ("from-pod", &self.from_pod),
            ("to-pod", &self.to_pod),
            ("workload", &self.workload),
            ("from-workload", &self.from_workload),
            ("to-workload", &self.to_workload),
            ("cluster", &self.cluster),
            ("from-cluster", &self.from_cluster),
            ("to-cluster", &self.to_cluster),
            ("ip", &self.ip),
            ("from-ip", &self.from_ip),
            ("to-ip", &self.to_ip),
            ("port", &self.port),
            ("from-port", &self.from_port),
            ("to-port", &self.to_port),
            ("identity", &self.identity),
            ("from-identity", &self.from_identity),
            ("to-identity", &self.to_identity),
            ("service", &self.service),
            ("policy", &self.policy),
            ("via", &self.via),
            ("protocol", &self.protocol),
            ("direction", &self.direction),
            ("id", &self.id),
            ("method", &self.method),
            ("path", &self.path),
            ("status", &self.status),
            ("trace-id", &self.trace_id),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?)));
        let mut query: BTreeMap<String, String> = given.collect();
        let mut put = |key: &str, value: &str| query.insert(key.to_owned(), value.to_owned());
        match self.verdict {
            Some(Verdict::Allowed) => drop(put("verdict", "allowed")),
            Some(Verdict::Denied) => drop(put("verdict", "denied")),
            None => {}
        }
        if !self.code.is_empty() {
            put("code", &self.code.iter().map(|code| code.code()).collect::<Vec<_>>().join(","));
        }
        if self.encrypted || self.unencrypted {
            put("encrypted", if self.encrypted { "true" } else { "false" });
        }
        for one in &self.not {
            let (key, value) =
                one.split_once('=').ok_or_else(|| format!("--not {one:?}: write it as FILTER=VALUE"))?;
            put(&format!("not-{key}"), value);
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filters: Filters,
    }

    /// Whether a connection of shop/web to data/db passes.
    #[track_caller]
    fn passes(flags: &[&str]) -> bool {
        let record = json!({
            "verdict": "allowed", "path": "hbone", "http": null, "hbone_addr": "10.0.0.2:5432",
            "src": {"addr": "10.0.0.1:40000", "workload": "web-1", "controller": "web", "namespace": "shop", "cluster": "east"},
            "dst": {"addr": "10.0.0.2:15008", "workload": "db-0", "controller": "db", "namespace": "data", "cluster": "west"},
        });
        let line = Line::parse_from(std::iter::once(&"flows").chain(flags));
        line.filters.filter().unwrap().passes(&record)
    }

    #[test]
    fn each_flag_reaches_the_filter() {
        let rows = [
            ("--workload", "web", "cart"),
            ("--from-workload", "shop/web", "data/db"),
            ("--to-workload", "db", "web"),
            ("--cluster", "east", "north"),
            ("--from-cluster", "east", "west"),
            ("--to-cluster", "west", "east"),
            ("--protocol", "tcp", "http"),
            ("--port", "40000", "80"),
            ("--port", "5432", "15008"),
            ("--to-port", "5432", "40000"),
        ];
        for (flag, yes, no) in rows {
            assert!(passes(&[flag, yes]), "{flag} {yes}");
            assert!(!passes(&[flag, no]), "{flag} {no}");
        }
        assert!(!passes(&["--not", "from-workload=web"]));
    }
}
