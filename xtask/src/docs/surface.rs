//! The reference of what a program shows: metrics, fields of the access log, paths of the admin sockets.
//!
//! Names and labels are read from the code; what they mean stands here, and each list is held against the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::settings::{source, tokens};
use crate::tidy::{Finding, read_sources};

/// This file, for findings.
const OWN: &str = "xtask/src/docs/surface.rs";

/// Folders whose programs have metrics, with the program's name.
const PROGRAMS: &[(&str, &str)] = &[
    ("ztunnel/src", "ztunnel"),
    ("cni/src", "ambit-cni"),
    ("istiod-lite/src", "istiod-lite"),
    ("crates/ambit-runtime/src", "every program"),
    ("crates/ambit-net/src", "ztunnel"),
];

/// Metrics and what they mean.
const METRICS: &[(&str, &str)] = &[
    (
        "ambit_callers_refused_total",
        "Calls that were refused before anything was asked of the CA or discovery, by the check that failed",
    ),
    ("ambit_capture_repairs_total", "Rules that were put right in a pod, by what had happened to them"),
    ("ambit_certificate_issue_errors_total", "Certificates that were not issued, by the check that failed"),
    ("ambit_certificates_issued_total", "Certificates issued"),
    ("ambit_config_changes_total", "Changes of what the nodes are served"),
    (
        "ambit_config_last_ack_timestamp_seconds",
        "When the node last accepted configuration, in seconds since 1970",
    ),
    (
        "ambit_config_rejected_total",
        "Pieces of configuration that a node refused, by kind; the last good one stays",
    ),
    ("ambit_config_revision", "Revision of the objects that are served"),
    (
        "ambit_certificate_remaining_seconds",
        "What the certificates that the node holds have left of their life",
    ),
    (
        "ambit_conntrack_used_ratio",
        "Share of the connection tracking table that is in use, in the program's own network namespace",
    ),
    ("ambit_connections_open", "Connections that are open, by the path they take"),
    (
        "ambit_connections_refused_total",
        "Connections that were refused or cut, by code and by the policy that decided",
    ),
    (
        "ambit_connections_shed_total",
        "Connections to the control plane that were closed unheard, because it had too many",
    ),
    (
        "ambit_endpoint_retries_total",
        "Connections that went to another endpoint because one was not reached, by the code of why",
    ),
    ("ambit_fd_used_ratio", "Share of the descriptors that the program may have which are open"),
    (
        "ambit_flow_records_lost_total",
        "Flow records that the ring pushed out (`ring`) or that a follower was too slow for (`follower`)",
    ),
    (
        "ambit_forwarded_identities_ignored_total",
        "Connections whose peer named a client without being a waypoint of the destination, so that it counts for nothing",
    ),
    (
        "ambit_handshake_seconds",
        "Time of TLS handshakes of tunnels, by our role in them and by the key exchange agreed on",
    ),
    ("ambit_handshakes_failed_total", "TLS handshakes with the control plane that failed"),
    ("ambit_log_records_lost_total", "Lines of the log that were dropped because the reader was too slow"),
    ("ambit_manifest_problems", "Manifests that are refused at the moment"),
    (
        "ambit_memory_used_ratio",
        "Share of its control group's memory that is resident; only where the group has a limit",
    ),
    (
        "ambit_metrics_overflow_total",
        "Connections that were counted together because there were too many sets of labels",
    ),
    (
        "ambit_plaintext_accepted_total",
        "Plaintext connections that were let in, by the mode in force and why",
    ),
    ("ambit_policy_shadow_denied_total", "Connections that dry-run policies would have refused, by policy"),
    (
        "ambit_policy_unresolved_refs",
        "Policies that apply to pods of the node and are not held or not usable; nothing is allowed there",
    ),
    ("ambit_root_remaining_seconds", "What the first root to run out has left of its life"),
    ("ambit_runtime_stall_seconds", "How late the program wakes a task, looked at each second"),
    ("ambit_start_time_seconds", "When the program started, in seconds since 1970"),
    ("ambit_task_panics_total", "Tasks that ended by a panic, by their name"),
    ("ambit_workloads_captured", "Pods that are captured"),
    ("ambit_workloads_expected", "Pods whose labels ask for capture"),
    ("ambit_xds_streams", "Discovery streams that are open"),
    ("ambit_zds_refused_total", "Programs that were refused as a ztunnel by the node agent"),
    ("ambit_ztunnel_connections", "ztunnels that are connected to the node agent"),
    ("istio_build", "1, with the program's version"),
    ("istio_tcp_connections_closed_total", "Connections that ended; labels as below"),
    ("istio_tcp_connections_failed_total", "Connections that ended badly or were refused; labels as below"),
    ("istio_tcp_connections_opened_total", "Connections that began, refused ones too; labels as below"),
    (
        "istio_tcp_received_bytes_total",
        "Bytes that came from the client, for both reporters; labels as below",
    ),
    ("istio_tcp_sent_bytes_total", "Bytes that went to the client, for both reporters; labels as below"),
    ("istio_tcp_sockets_open", "Accepted sockets that are open; a tunnel's streams share one"),
    ("istio_xds_connection_terminations_total", "Ends of the discovery stream, by why"),
    ("istio_xds_message_bytes_total", "Bytes of the resources in messages of discovery, by type"),
    ("istio_xds_message_total", "Messages of discovery that came, by type"),
    ("process_cpu_seconds_total", "Time on processors, in the program and in the kernel for it"),
    ("process_max_fds", "Descriptors that the program may have"),
    ("process_open_fds", "Descriptors that are open"),
    ("process_resident_memory_bytes", "Memory of the program that is in RAM"),
    ("process_start_time_seconds", "When the program started, in seconds since 1970"),
    ("tokio_global_queue_depth", "Tasks that wait in the queue that all workers share"),
    ("tokio_num_alive_tasks", "Tasks that are alive"),
    ("tokio_num_workers", "Threads that run tasks"),
    ("tokio_worker_park_count_total", "Times that a thread had nothing to do, by `worker`"),
    ("tokio_worker_park_unpark_count_total", "Times that a thread went to sleep or woke up, by `worker`"),
    ("tokio_worker_total_busy_duration_seconds_total", "Time that a thread ran tasks, by `worker`"),
    ("workload_manager_active_proxy_count", "Pods that are served"),
    ("workload_manager_pending_proxy_count", "Pods that wait to be served"),
    ("workload_manager_proxies_started_total", "Pods that began to be served"),
    ("workload_manager_proxies_stopped_total", "Pods that ceased to be served"),
    (
        "ambit_admin_calls_cut_total",
        "Calls of an admin listener that were cut because they took too long or were too many",
    ),
    (
        "ambit_sealed_state_in_force",
        "1 while the node serves what it had sealed, until discovery is complete",
    ),
    ("ambit_sealed_state_refused_total", "Sealed states that were not used at a start, by code"),
    ("ambit_sealed_state_writes_total", "Sealed states that were written, by how that went"),
    ("ambit_tasks_alive", "Tasks that are alive in the program"),
    ("ambit_tunnel_connections", "Tunnels that pods of the node have opened"),
    ("ambit_tunnel_streams", "Streams on those tunnels"),
    ("ambit_tunnels_replaced_total", "Tunnels that were given up for another one before a byte was sent"),
];

/// The file that writes the access log.
const ACCESS_LOG: &str = "crates/ambit-runtime/src/access_log.rs";

/// Fields of the access log and what they mean.
const FIELDS: &[(&str, &str)] = &[
    ("src.addr", "The client's address and port"),
    ("src.workload", "The client's pod, else its canonical service"),
    ("src.namespace", "The client's namespace"),
    ("src.identity", "The client's SPIFFE identity; only where it was established"),
    ("src.cluster", "The client's cluster"),
    ("dst.addr", "The server's address and port, as they were reached"),
    ("dst.hbone_addr", "The address that the tunnel request named"),
    ("dst.service", "Host name of the service that was addressed"),
    ("dst.workload", "The server's pod, else its canonical service"),
    ("dst.namespace", "The server's namespace"),
    ("dst.identity", "The server's SPIFFE identity; only where it was established"),
    ("dst.cluster", "The server's cluster"),
    ("direction", "`inbound` or `outbound`, seen from the workload of this node"),
    ("bytes_sent", "Bytes that the workload of this node sent"),
    ("bytes_recv", "Bytes that the workload of this node received"),
    ("duration", "From accept to end, as text such as `12ms`"),
    ("error", "Failure in words; only on failure"),
    ("duration_ms", "The duration as a number of milliseconds"),
    ("code", "Reason code such as AMB2104, see [reasons](reasons.md)"),
    ("reason", "Its name such as `policy-denied`"),
    ("policy", "The policy that decided, as NAMESPACE/NAME"),
    ("path", "`local`, `hbone`, `waypoint`, `plaintext`, `probe` or `passthrough`"),
    (
        "client.identity",
        "On whose behalf `src` connected, where that is the waypoint of the server and says so; the server's side only",
    ),
    ("conn.id", "Connection id, 32 hex digits, the same in the records of both ends; `ambit why` takes it"),
    ("stale_for", "Seconds since the control plane was last heard; only while it is away"),
];

/// Files that open admin routes, with the programs that serve them.
const ROUTES: &[(&str, &str)] = &[
    ("crates/ambit-runtime/src/admin.rs", "every program"),
    ("ztunnel/src/admin.rs", "ztunnel"),
    ("waypoint/src/admin.rs", "waypoint"),
    ("waypoint/src/observe/flows.rs", "waypoint"),
    ("cni/src/app.rs", "ambit-cni"),
    ("istiod-lite/src/report.rs", "istiod-lite"),
];

/// Paths of the admin sockets and what they answer.
const PATHS: &[(&str, &str)] = &[
    ("/healthz/live", "`alive` as long as the program answers at all"),
    ("/healthz/startup", "As `/healthz/ready`"),
    ("/healthz/ready", "200 once every part is ready; `?verbose` lists the parts as JSON"),
    ("/metrics", "Metrics in the Prometheus text format"),
    ("/stats/prometheus", "The same, where Istio's scrapers look"),
    ("/logging", "GET: the log filter; POST `?level=FILTER` replaces it until the program ends"),
    (
        "/config_dump",
        "What is known: workloads, services, policies, and of a waypoint its routes and what was refused; ztunnels and \
         waypoints add their certificates, never a key",
    ),
    ("/connections", "Connections that are open"),
    (
        "/certificates",
        "Certificates of the program's identities; a ztunnel adds their issuers and the roots they trust",
    ),
    (
        "/flows",
        "Flow records, one JSON object a line, then a footer with what was lost; `?last=N`, `?follow`",
    ),
    ("/budget", "What the process uses of what it may use: memory, descriptors, connections, flow records"),
    ("/pods", "The pods of the node with their state; `?uid=` picks one"),
    ("/sync", "Revision of the objects, and what each node has acknowledged or refused"),
];

/// Names in the code that have no meaning here, and meanings of what is gone.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    let metrics: BTreeSet<String> = found_metrics(root).unwrap_or_default().into_keys().collect();
    let fields: BTreeSet<String> = found_fields(root).unwrap_or_default().into_iter().collect();
    let paths: BTreeSet<String> = found_paths(root).unwrap_or_default().into_iter().map(|p| p.0).collect();
    let lists = [("metric", metrics, METRICS), ("log field", fields, FIELDS), ("admin path", paths, PATHS)];
    let mut findings = Vec::new();
    for (what, found, told) in lists {
        let known: BTreeSet<&str> = told.iter().map(|(name, _)| *name).collect();
        for name in found.iter().filter(|name| !known.contains(name.as_str())) {
            let text = format!("the {what} {name} has no meaning");
            findings.push(Finding::error(OWN, 1, text, "add a row that says what it means"));
        }
        for name in known.iter().filter(|name| !found.contains(**name)) {
            let text = format!("there is no {what} {name} any more");
            findings.push(Finding::error(OWN, 1, text, "remove its row"));
        }
    }
    findings
}

fn meaning(list: &[(&str, &str)], name: &str) -> String {
    list.iter().find(|(known, _)| *known == name).map(|(_, told)| super::cell(told)).unwrap_or_default()
}

/// The page of metrics.
///
/// # Errors
/// When the sources cannot be read.
pub(super) fn metrics(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "# Metrics\n\n\
         Each program serves these on its admin socket, ztunnel also on port 15020 of its node.\n\
         Series that nothing has touched for 30 minutes are dropped.\n\n\
         Generated by `cargo xtask docs`; names and labels come from the code.\n\n\
         | metric | kind | labels | program | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for (name, Metric { kind, labels, programs }) in found_metrics(root)? {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let programs: Vec<&str> = programs.into_iter().collect();
        let (labels, programs) = (labels.join(", "), programs.join(", "));
        writeln!(out, "| `{name}` | {kind} | {labels} | {programs} | {} |", meaning(METRICS, &name))
            .expect("writing to a String cannot fail");
    }
    out.push_str(ISTIO_LABELS);
    Ok(out)
}

const ISTIO_LABELS: &str = "\n\
## Labels of the compatible TCP metrics\n\n\
`reporter` (`source` or `destination`), `request_protocol` (`tcp`), `response_flags` (see [reasons](reasons.md)),\n\
`connection_security_policy` (`mutual_tls` only where TLS ran, else `unknown`), and for each end, as `source_…` and\n\
`destination_…`: `workload`, `workload_namespace`, `principal`, `app`, `version`, `cluster`, `canonical_service`,\n\
`canonical_revision`, `region`, `zone`; for the destination also `service`, `service_name` and `service_namespace`.\n\
Where there are too many sets of labels, all further connections are counted in one with `overflow=\"true\"`.\n";

/// The page of the access log.
///
/// # Errors
/// When the sources cannot be read.
pub(super) fn access_log(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "# Access log\n\n\
         One record a connection and end, written once at its end, with the target `access` and the message\n\
         `connection complete`: INFO, or ERROR with `error` if it was refused by policy, not reached or cut.\n\
         A connection that was refused before there was anything to decide (an unknown workload, a failed handshake, a\n\
         quota) has `connection failed` instead: WARN, without the counts and times.\n\
         At DEBUG there is `connection opened` as well when one is let in, with the same fields but those of its end.\n\
         In the plain format strings are in quotes; addresses and numbers are not.\n\
         `LOG_FORMAT=json` writes each record as one flat JSON object; fields that are not known are left out.\n\n\
         Generated by `cargo xtask docs`; the names come from the code.\n\n\
         | field | content |\n| --- | --- |\n",
    );
    for field in found_fields(root)? {
        writeln!(out, "| `{field}` | {} |", meaning(FIELDS, &field))
            .expect("writing to a String cannot fail");
    }
    Ok(out)
}

/// The page of the admin sockets.
///
/// # Errors
/// When the sources cannot be read.
pub(super) fn admin(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "# Admin sockets\n\n\
         HTTP/1.1 over a Unix socket that serves root and the program's own user, by the kernel's word of who calls:\n\
         `curl --unix-socket /var/run/ztunnel/admin.sock http://localhost/connections`.\n\
         ztunnel also serves `/metrics` and `/stats/prometheus` on TCP port 15020 and `/healthz/…` on 15021 of its node,\n\
         and in a cluster `/config_dump` to read on 127.0.0.1:15000;\n\
         nothing that changes a program is on TCP.\n\n\
         Generated by `cargo xtask docs`; the paths come from the code.\n\n\
         | path | method | program | answers |\n| --- | --- | --- | --- |\n",
    );
    for (path, method, program) in found_paths(root)? {
        writeln!(out, "| `{path}` | {method} | {program} | {} |", meaning(PATHS, &path))
            .expect("writing to a String cannot fail");
    }
    Ok(out)
}

/// What the code says about a metric.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    programs: BTreeSet<&'static str>,
}

fn found_metrics(root: &Path) -> anyhow::Result<BTreeMap<String, Metric>> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for file in read_sources(root)? {
        let program = PROGRAMS.iter().find(|(folder, _)| file.path.starts_with(&format!("{folder}/")));
        let is_code = file.path.ends_with(".rs") && !file.path.ends_with("tests.rs");
        if let (Some((_, program)), true) = (program, is_code) {
            for (name, kind, labels) in metrics_in(&file.text) {
                let metric = found.entry(name).or_default();
                metric.kind = kind;
                metric.labels.extend(labels);
                metric.programs.insert(program);
            }
        }
    }
    Ok(found)
}

/// `metrics::counter!("name", "label" => …)` and its kin: name, kind, labels.
fn metrics_in(source: &str) -> Vec<(String, String, Vec<String>)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for window in tokens.windows(3) {
        let [TokenTree::Ident(kind), TokenTree::Punct(mark), TokenTree::Group(group)] = window else {
            continue;
        };
        let kind = kind.to_string();
        if mark.as_char() != '!' || !["counter", "gauge", "histogram"].contains(&kind.as_str()) {
            continue;
        }
        let inside: Vec<TokenTree> = group.stream().into_iter().collect();
        let Some(name) = inside.first().and_then(text) else { continue };
        let labels = inside.windows(2).filter_map(|pair| match pair {
            [label, TokenTree::Punct(arrow)] if arrow.as_char() == '=' => text(label),
            _ => None,
        });
        found.push((name, kind, labels.collect()));
    }
    found.extend(by_hand(&tokens, &found));
    found
}

/// Families that a source writes by itself: `"name", "kind"` side by side; and those of the TCP metrics, which are plain
/// literals because they go with their pods.
fn by_hand(
    tokens: &[TokenTree],
    known: &[(String, String, Vec<String>)],
) -> Vec<(String, String, Vec<String>)> {
    let pair = |window: &[TokenTree]| {
        let [name, TokenTree::Punct(comma), kind] = window else { return None };
        let kind = text(kind).filter(|kind| ["counter", "gauge", "histogram"].contains(&kind.as_str()))?;
        (comma.as_char() == ',').then_some((text(name)?, kind))
    };
    let pairs = tokens.windows(3).filter_map(pair);
    let of_tcp = tokens.iter().filter_map(text).filter(|name| name.starts_with("istio_tcp_"));
    let of_tcp = of_tcp.filter(|name| !known.iter().any(|(known, ..)| known == name));
    let all = pairs.chain(of_tcp.map(|name| (name, "counter".to_owned())));
    all.map(|(name, kind)| (name, kind, Vec::new())).collect()
}

/// The fields that the macro of the access log writes, in their order.
fn found_fields(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(fields_in(&source(root, ACCESS_LOG)?))
}

fn fields_in(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    // `$level!(target: "access", {FIELD = …, …}, …)`: the braces right after the target.
    let at = tokens.iter().position(|token| text(token).as_deref() == Some("access"));
    let braces = tokens.iter().skip(at.unwrap_or(tokens.len())).find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
        _ => None,
    });
    let mut fields = Vec::new();
    let (mut name, mut reading) = (String::new(), true);
    for token in braces.into_iter().flatten() {
        match &token {
            TokenTree::Ident(word) if reading => name.push_str(&word.to_string()),
            TokenTree::Punct(mark) if reading && mark.as_char() == '.' => name.push('.'),
            TokenTree::Punct(mark) if reading && mark.as_char() == '=' => {
                fields.push(std::mem::take(&mut name));
                reading = false;
            }
            TokenTree::Punct(mark) if mark.as_char() == ',' => reading = true,
            _ => {}
        }
    }
    fields
}

/// Path, method and program of every admin route.
fn found_paths(root: &Path) -> anyhow::Result<Vec<(String, &'static str, &'static str)>> {
    let mut found = Vec::new();
    for (file, program) in ROUTES {
        found.extend(
            paths_in(&source(root, file)?).into_iter().map(|(path, method)| (path, method, *program)),
        );
    }
    found.sort();
    Ok(found)
}

/// `.get("/path", …)` and `.post("/path", …)`.
fn paths_in(source: &str) -> Vec<(String, &'static str)> {
    let tokens = tokens(source);
    let route = |window: &[TokenTree]| {
        let [TokenTree::Ident(method), TokenTree::Group(group)] = window else { return None };
        let method = match method.to_string().as_str() {
            "get" => "GET",
            "post" => "POST",
            _ => return None,
        };
        let path = group.stream().into_iter().next().as_ref().and_then(text)?;
        path.starts_with('/').then_some((path, method))
    };
    tokens.windows(2).filter_map(route).collect()
}

/// The text of a literal.
fn text(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    let literal = literal.to_string();
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_with_their_labels() {
        let source = r#"fn f() {
            metrics::counter!("a_total", "code" => reason.code(), "policy" => "").increment(1);
            let g = metrics::gauge!("b").set(1.0);
            metrics::counter!("c_total", labels.iter());
            other!("d");
            family(text, "e_seconds", "histogram");
            metrics::gauge!("istio_tcp_f", "reporter" => reporter);
            head(text, "istio_tcp_g_total");
        }"#;
        let found = metrics_in(source);
        let row = |name: &str, kind: &str, labels: &[&str]| {
            (name.to_owned(), kind.to_owned(), labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
        };
        let want = [
            row("a_total", "counter", &["code", "policy"]),
            row("b", "gauge", &[]),
            row("c_total", "counter", &[]),
            row("istio_tcp_f", "gauge", &["reporter"]),
            row("e_seconds", "histogram", &[]),
            row("istio_tcp_g_total", "counter", &[]),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn fields_and_paths_are_found() {
        let source = r#"macro_rules! m { () => { $level!(target: "access", {src.addr = r.src.map(f, g),
            direction = d, duration = %format_args!("{}ms", x), conn.id = i}, $message); } }"#;
        assert_eq!(fields_in(source), ["src.addr", "direction", "duration", "conn.id"]);
        let source =
            r#"fn f() { Routes::new().get("/a", move |_| x.get("key")).post("/b", y); map.get("/c/d") }"#;
        let found = paths_in(source);
        let want = [("/a", "GET"), ("/b", "POST"), ("/c/d", "GET")];
        assert_eq!(found.iter().map(|(p, m)| (p.as_str(), *m)).collect::<Vec<_>>(), want);
    }
}
