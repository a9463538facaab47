//! Questions and panels that several boards share.

use super::Kind::{self, Graph, Table};
use super::{Panel, Variable};

/// The namespace of who is called.
pub(super) const NAMESPACE: Variable = Variable {
    name: "namespace",
    label: "Namespace",
    query: "label_values(istio_tcp_connections_opened_total, destination_workload_namespace)",
};

/// The label that is chosen on boards of programs.
pub(super) const OWN: &str = r#"instance=~"$instance""#;

/// What is asked, and how each answer is called.
pub(super) type Ask = (String, &'static str);

/// A panel.
pub(super) fn panel(title: &'static str, kind: Kind, unit: &'static str, asks: Vec<Ask>) -> Panel {
    Panel { title, kind, unit, asks }
}

/// A panel of lines that asks one thing.
pub(super) fn graph(title: &'static str, unit: &'static str, query: String, legend: &'static str) -> Panel {
    panel(title, Graph, unit, vec![(query, legend)])
}

/// A counter's rate over series with these labels, added up; both `labels` and `by` may be empty.
pub(super) fn rate(metric: &str, labels: &str, by: &str) -> String {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    match by {
        "" => format!("sum(rate({metric}{labels}[$__rate_interval]))"),
        by => format!("sum by ({by}) (rate({metric}{labels}[$__rate_interval]))"),
    }
}

/// The rate of a counter of the chosen programs.
pub(super) fn own_rate(metric: &str, by: &str) -> String {
    rate(metric, OWN, by)
}

/// A gauge of the chosen programs, by an aggregation such as `sum by (path)`, or each for itself.
pub(super) fn gauge(metric: &str, aggregation: &str) -> String {
    match aggregation {
        "" => format!("{metric}{{{OWN}}}"),
        aggregation => format!("{aggregation} ({metric}{{{OWN}}})"),
    }
}

/// A quantile of a histogram; `by` may be empty.
pub(super) fn quantile(quantile: &str, metric: &str, labels: &str, by: &str) -> String {
    let comma = if by.is_empty() { "" } else { ", " };
    let buckets = format!("rate({metric}_bucket{{{labels}}}[$__rate_interval])");
    format!("histogram_quantile({quantile}, sum by ({by}{comma}le) ({buckets}))")
}

/// What every program tells of itself.
pub(super) fn process() -> Vec<Panel> {
    let processors = format!("rate(process_cpu_seconds_total{{{OWN}}}[$__rate_interval])");
    vec![
        graph("Memory", "bytes", gauge("process_resident_memory_bytes", ""), "{{instance}} {{job}}"),
        graph("CPU", "percentunit", processors, "{{instance}} {{job}}"),
    ]
}

/// The same, with its version.
pub(super) fn versioned_process() -> Vec<Panel> {
    let versions = gauge("istio_build", "sum by (component, tag)");
    let mut panels = vec![panel("Versions", Table, "short", vec![(versions, "")])];
    panels.extend(process());
    panels
}

/// How near every program is to its limits.
pub(super) fn headroom() -> Vec<Panel> {
    const EACH: &str = "{{instance}} {{job}}";
    let late = quantile("0.99", "ambit_runtime_stall_seconds", OWN, "instance");
    let starts = format!("ambit_start_time_seconds{{{OWN}}} * 1000");
    vec![
        graph("Descriptors in use", "percentunit", gauge("ambit_fd_used_ratio", ""), EACH),
        graph("Connection tracking in use", "percentunit", gauge("ambit_conntrack_used_ratio", ""), EACH),
        graph("Memory limit in use", "percentunit", gauge("ambit_memory_used_ratio", ""), EACH),
        graph("Tasks woken late", "s", late, "p99 {{instance}}"),
        graph("Tasks alive", "short", gauge("ambit_tasks_alive", ""), EACH),
        panel("Starts", Table, "dateTimeAsIso", vec![(starts, EACH)]),
    ]
}

/// Requests with these labels; `by` is a label, and `each` shows its value.
pub(super) fn layer7(labels: &str, by: &str, each: &'static str) -> Vec<Panel> {
    const REQUESTS: &str = "istio_requests_total";
    const LATENCY: &str = "istio_request_duration_milliseconds";
    let all = rate(REQUESTS, labels, by);
    let good = rate(REQUESTS, &format!(r#"{labels},response_code!~"5..""#), by);
    let flagged = rate(REQUESTS, &format!(r#"{labels},response_flags!="-""#), "response_flags");
    let latency = [("0.50", "p50"), ("0.95", "p95"), ("0.99", "p99")];
    let latency = latency.map(|(share, name)| (quantile(share, LATENCY, labels, ""), name));
    vec![
        graph("Success", "percentunit", format!("{good} / {all}"), each),
        graph("Requests", "reqps", all, each),
        graph("Requests by code", "reqps", rate(REQUESTS, labels, "response_code"), "{{response_code}}"),
        panel("Latency", Graph, "ms", latency.into()),
        graph("Latency, p95", "ms", quantile("0.95", LATENCY, labels, by), each),
        graph("Refused by flag", "reqps", flagged, "{{response_flags}}"),
    ]
}

/// Connections with these labels; `by` is a label, and `each` shows its value.
pub(super) fn layer4(labels: &str, by: &str, each: &'static str) -> Vec<Panel> {
    const OPENED: &str = "istio_tcp_connections_opened_total";
    let closed = rate("istio_tcp_connections_closed_total", labels, "response_flags");
    let security = rate(OPENED, labels, "connection_security_policy");
    vec![
        graph("Connections opened", "cps", rate(OPENED, labels, by), each),
        graph("Bytes to clients", "Bps", rate("istio_tcp_sent_bytes_total", labels, by), each),
        graph("Bytes from clients", "Bps", rate("istio_tcp_received_bytes_total", labels, by), each),
        graph("Connections closed by flag", "cps", closed, "{{response_flags}}"),
        graph("Connections by security", "cps", security, "{{connection_security_policy}}"),
    ]
}
