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
    /// Only with this address at either end
    #[arg(long)]
    ip: Option<String>,
    /// Only from this address
    #[arg(long, value_name = "IP")]
    from_ip: Option<String>,
    /// Only to this address
    #[arg(long, value_name = "IP")]
    to_ip: Option<String>,
    /// Only from this port
    #[arg(long, value_name = "PORT")]
    from_port: Option<String>,
    /// Only to this port
    #[arg(long = "to-port", visible_alias = "port", value_name = "PORT")]
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
            ("ip", &self.ip),
            ("from-ip", &self.from_ip),
            ("to-ip", &self.to_ip),
            ("from-port", &self.from_port),
            ("to-port", &self.to_port),
            ("identity", &self.identity),
            ("from-identity", &self.from_identity),
            ("to-identity", &self.to_identity),
            ("service", &self.service),
            ("policy", &self.policy),
            ("via", &self.via),
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
