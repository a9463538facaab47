//! State as JSON, with the key names that existing tools read.

use ambit_net::tls::spiffe;
use ambit_policy::model::{Action, Match, Policy, Scope, StringMatch, Values};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_state::ServiceEntry;
use ambit_types::service::{LoadBalancingMode, Port};
use ambit_types::workload::Health;
use ambit_types::{Destination, GatewayAddress, TunnelProtocol, Workload};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use crate::proxy::Proxy;

/// Everything this node knows.
pub(super) fn config_dump(proxy: &Proxy, about: &Value, state: &Value) -> Value {
    let snapshot = proxy.mesh.snapshot();
    json!({
        "version": about,
        "state": state,
        "workloads": snapshot.workloads().into_iter().map(|w| workload(w)).collect::<Vec<_>>(),
        "services": snapshot.services().into_iter().map(|s| service(s)).collect::<Vec<_>>(),
        "policies": snapshot.policies().map(|p| policy(p)).collect::<Vec<_>>(),
        "certificates": certificates(proxy),
    })
}

fn workload(w: &Workload) -> Value {
    let mut object = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            object.insert(key.to_owned(), Value::from(value));
        }
    };
    text("uid", w.uid.as_str());
    text("name", &w.name);
    text("namespace", &w.namespace);
    text("serviceAccount", &w.service_account);
    text("trustDomain", w.trust_domain.as_str());
    text("network", w.network.as_str());
    text("node", &w.node);
    text("workloadName", &w.workload_name);
    text("canonicalName", &w.canonical_name);
    text("canonicalRevision", &w.canonical_revision);
    text("hostname", &w.hostname);
    text("clusterId", &w.cluster_id);
    let protocol = match w.tunnel {
        TunnelProtocol::Hbone => "HBONE",
        TunnelProtocol::None => "TCP",
        TunnelProtocol::LegacyIstioMtls => "LEGACY_ISTIO_MTLS",
    };
    text("protocol", protocol);
    text("status", if w.health == Health::Healthy { "Healthy" } else { "Unhealthy" });
    object.insert("workloadIps".to_owned(), json!(w.addresses));
    let names = |keys: Vec<String>| Value::from(keys);
    object.insert(
        "authorizationPolicies".to_owned(),
        names(w.policies.iter().map(ToString::to_string).collect()),
    );
    object.insert("services".to_owned(), names(w.services.keys().map(ToString::to_string).collect()));
    object.insert("probePorts".to_owned(), json!(w.probe_ports()));
    if let Some(waypoint) = &w.waypoint {
        object.insert("waypoint".to_owned(), Value::from(gateway(waypoint)));
    }
    Value::Object(object)
}

fn service(entry: &ServiceEntry) -> Value {
    let s = entry.service();
    let ports: Map<String, Value> =
        s.ports.iter().map(|p: &Port| (p.service_port.to_string(), Value::from(p.target_port))).collect();
    let endpoints: Map<String, Value> = entry
        .endpoints()
        .iter()
        .map(|w| {
            let status = if w.health == Health::Healthy { "Healthy" } else { "Unhealthy" };
            (w.uid.to_string(), json!({"workloadUid": w.uid.as_str(), "status": status}))
        })
        .collect();
    let mode = match s.load_balancing.mode {
        LoadBalancingMode::Any => "Standard",
        LoadBalancingMode::Strict => "Strict",
        LoadBalancingMode::Failover => "Failover",
        LoadBalancingMode::Passthrough => "Passthrough",
    };
    json!({
        "name": &*s.name,
        "namespace": &*s.namespace,
        "hostname": &*s.hostname,
        "vips": s.vips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ports": ports,
        "endpoints": endpoints,
        "subjectAltNames": s.subject_alt_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "loadBalancer": {"mode": mode},
        "waypoint": s.waypoint.as_ref().map(gateway),
        "canonical": s.canonical,
    })
}

/// Where a waypoint is reached.
fn gateway(of: &GatewayAddress) -> String {
    match &of.destination {
        Destination::Hostname(key) => format!("{key}:{}", of.hbone_mtls_port),
        Destination::Address(address) => format!("{address}:{}", of.hbone_mtls_port),
    }
}

fn policy(p: &Policy) -> Value {
    let scope = match p.scope {
        Scope::Global => "Global",
        Scope::Namespace => "Namespace",
        Scope::WorkloadSelector => "WorkloadSelector",
    };
    let action = match p.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
    };
    let clause =
        |c: &ambit_policy::model::Clause| Value::from(c.matches.iter().map(one_match).collect::<Vec<_>>());
    let rules: Vec<Value> =
        p.rules.iter().map(|r| Value::from(r.clauses.iter().map(clause).collect::<Vec<_>>())).collect();
    json!({
        "name": &*p.key.name,
        "namespace": &*p.key.namespace,
        "scope": scope,
        "action": action,
        "rules": rules,
        "dryRun": p.dry_run,
    })
}

fn one_match(m: &Match) -> Value {
    let mut object = Map::new();
    put(&mut object, ("namespaces", "notNamespaces"), &m.namespaces, string_match);
    put(&mut object, ("principals", "notPrincipals"), &m.principals, string_match);
    put(&mut object, ("serviceAccounts", "notServiceAccounts"), &m.service_accounts, |a| {
        Value::from(format!("{}/{}", a.namespace, a.name))
    });
    put(&mut object, ("sourceIps", "notSourceIps"), &m.source_ips, |ip| Value::from(ip.to_string()));
    put(&mut object, ("destinationIps", "notDestinationIps"), &m.destination_ips, |ip| {
        Value::from(ip.to_string())
    });
    put(&mut object, ("destinationPorts", "notDestinationPorts"), &m.destination_ports, |p| Value::from(*p));
    Value::Object(object)
}

fn put<T>(
    object: &mut Map<String, Value>,
    names: (&str, &str),
    values: &Values<T>,
    show: impl Fn(&T) -> Value,
) {
    for (name, list) in [(names.0, &values.any), (names.1, &values.none)] {
        if !list.is_empty() {
            object.insert(name.to_owned(), Value::from(list.iter().map(&show).collect::<Vec<_>>()));
        }
    }
}

fn string_match(m: &StringMatch) -> Value {
    match m {
        StringMatch::Exact(s) => json!({"Exact": &**s}),
        StringMatch::Prefix(s) => json!({"Prefix": &**s}),
        StringMatch::Suffix(s) => json!({"Suffix": &**s}),
        StringMatch::Presence => json!({"Presence": []}),
    }
}

/// Certificates by identity; never a key.
pub(super) fn certificates(proxy: &Proxy) -> Value {
    let time = |seconds: u64| {
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
            .to_string()
    };
    let one = |der: &[u8]| {
        let (from, to) = spiffe::validity(der).unwrap_or_default();
        json!({
            "serialNumber": spiffe::serial(der).unwrap_or_default(),
            "validFrom": time(from),
            "expirationTime": time(to),
        })
    };
    let known = proxy.certificates.list().into_iter().map(|known| {
        let valid = known.credential.as_ref().is_some_and(|c| c.not_after() > clock::unix_seconds());
        let state = match (&known.credential, &known.error) {
            (Some(_), _) if valid => "Available".to_owned(),
            (_, Some(error)) => format!("Unavailable: {error}"),
            (_, None) => "Initializing".to_owned(),
        };
        let chain =
            known.credential.iter().flat_map(|c| c.chain().iter().map(|der| one(der))).collect::<Vec<_>>();
        let roots =
            known.credential.iter().flat_map(|c| c.roots().iter().map(|der| one(der))).collect::<Vec<_>>();
        json!({
            "identity": known.identity.to_string(),
            "state": state,
            "valid": valid,
            "lastError": known.error,
            "certChain": chain,
            "rootCerts": roots,
        })
    });
    Value::from(known.collect::<Vec<_>>())
}

/// Live connections.
pub(super) fn connections(proxy: &Proxy) -> Value {
    let now = clock::monotonic();
    let one = |flow: &std::sync::Arc<crate::flow::Flow>| {
        let (sent, received) = flow.workload_bytes();
        let direction = match flow.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        json!({
            "conn_id": flow.id.to_string(),
            "direction": direction,
            "path": flow.path.as_str(),
            "src": crate::telemetry::json_end(&flow.src),
            "dst": crate::telemetry::json_end(&flow.route.dst),
            "service": flow.route.service.as_ref().map(|s| s.hostname.to_string()),
            "hbone_addr": flow.route.hbone_addr.as_deref(),
            "bytes_sent": sent,
            "bytes_recv": received,
            "age_ms": u64::try_from(now.saturating_duration_since(flow.started).as_millis()).unwrap_or(u64::MAX),
        })
    };
    Value::from(proxy.connections.flows().iter().map(one).collect::<Vec<_>>())
}

/// What the process uses of what it may use.
pub(super) fn budget(proxy: &Proxy) -> Value {
    let memory = proxy.telemetry.ring().memory();
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    json!({
        "resident_bytes": resident_bytes(),
        "descriptors_open": descriptors,
        "descriptors_max": getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft).ok(),
        "connections_open": proxy.connections.flows().len(),
        "pod_connections_max": proxy.settings.pod_connections_max,
        "flow_records": memory.records,
        "flow_records_max": memory.records_max,
        "flow_records_lost": memory.lost,
    })
}

/// Memory of the process that is in RAM; none where the kernel does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
