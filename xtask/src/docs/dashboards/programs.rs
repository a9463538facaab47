//! Boards of programs: the node, the waypoint, the control plane.

use super::Kind::{Graph, Stat};
use super::parts::{
    OWN, gauge, graph, headroom, layer7, own_rate, panel, process, quantile, rate, versioned_process,
};
use super::{Board, Panel, Variable};

/// A node: its proxy and its agent.
pub(super) fn node() -> Board {
    Board {
        path: "deploy/dashboards/node.json",
        uid: "ambit-node",
        title: "Ambit: node",
        about: "A node's proxy and agent: connections, identities, certificates, cost.",
        variables: vec![Variable {
            name: "instance",
            label: "Node",
            query: "label_values(ambit_tunnel_connections, instance)",
        }],
        rows: vec![
            ("Program", versioned_process()),
            ("Connections", node_connections()),
            ("Pods", node_pods()),
            ("Tunnels", node_tunnels()),
            ("Certificates", node_certificates()),
            ("Discovery", node_discovery()),
            ("Headroom", node_headroom()),
        ],
    }
}

fn node_connections() -> Vec<Panel> {
    vec![
        graph("Open, by path", "short", gauge("ambit_connections_open", "sum by (path)"), "{{path}}"),
        panel(
            "Opened and closed",
            Graph,
            "cps",
            vec![
                (own_rate("istio_tcp_connections_opened_total", ""), "opened"),
                (own_rate("istio_tcp_connections_closed_total", ""), "closed"),
            ],
        ),
        panel(
            "Bytes",
            Graph,
            "Bps",
            vec![
                (own_rate("istio_tcp_received_bytes_total", ""), "from clients"),
                (own_rate("istio_tcp_sent_bytes_total", ""), "to clients"),
            ],
        ),
        graph(
            "Refused, by code and policy",
            "cps",
            own_rate("ambit_connections_refused_total", "code, policy"),
            "{{code}} {{policy}}",
        ),
        graph(
            "Failed, by flag",
            "cps",
            own_rate("istio_tcp_connections_failed_total", "response_flags"),
            "{{response_flags}}",
        ),
        graph("Sockets", "short", gauge("istio_tcp_sockets_open", "sum by (reporter)"), "{{reporter}}"),
    ]
}

fn node_pods() -> Vec<Panel> {
    let by_namespace = |metric| gauge(metric, "sum by (namespace)");
    let (expected, captured) = ("ambit_workloads_expected", "ambit_workloads_captured");
    let missing = format!("{} - {}", by_namespace(expected), by_namespace(captured));
    vec![
        graph("Not protected, by namespace", "short", missing, "{{namespace}}"),
        panel(
            "Served and waiting",
            Graph,
            "short",
            vec![
                (gauge("workload_manager_active_proxy_count", "sum"), "active"),
                (gauge("workload_manager_pending_proxy_count", "sum"), "pending"),
            ],
        ),
        panel(
            "Started and stopped",
            Graph,
            "cps",
            vec![
                (own_rate("workload_manager_proxies_started_total", ""), "started"),
                (own_rate("workload_manager_proxies_stopped_total", ""), "stopped"),
            ],
        ),
    ]
}

fn node_tunnels() -> Vec<Panel> {
    const HANDSHAKE: &str = "ambit_handshake_seconds";
    const HANDSHAKES: &str = "ambit_handshake_seconds_count";
    let post_quantum = rate(HANDSHAKES, r#"instance=~"$instance",group="X25519MLKEM768""#, "");
    let share = format!("{post_quantum} / {}", own_rate(HANDSHAKES, ""));
    vec![
        panel(
            "Tunnels and streams",
            Graph,
            "short",
            vec![
                (gauge("ambit_tunnel_connections", "sum"), "tunnels"),
                (gauge("ambit_tunnel_streams", "sum"), "streams"),
                (gauge("ambit_tunnel_queue", "sum"), "waiting"),
            ],
        ),
        panel(
            "Handshakes",
            Graph,
            "s",
            vec![
                (quantile("0.50", HANDSHAKE, OWN, "role"), "p50 {{role}}"),
                (quantile("0.99", HANDSHAKE, OWN, "role"), "p99 {{role}}"),
            ],
        ),
        graph("Post-quantum share", "percentunit", share, "X25519MLKEM768"),
    ]
}

fn node_certificates() -> Vec<Panel> {
    const LEFT: &str = "ambit_certificate_remaining_seconds";
    // Bounds of histograms are written with or without their fraction, by the version of Prometheus.
    let soon = format!("sum by (instance) ({LEFT}_bucket{{{OWN},le=~\"3600(.0)?\"}})");
    vec![
        graph(
            "Least part of a life that is left",
            "percentunit",
            gauge("ambit_certificate_remaining_ratio", "min by (instance)"),
            "{{instance}}",
        ),
        panel(
            "Held, and ending within an hour",
            Graph,
            "short",
            vec![
                (gauge(&format!("{LEFT}_count"), "sum by (instance)"), "held {{instance}}"),
                (soon, "within an hour {{instance}}"),
            ],
        ),
        graph(
            "Root, time left",
            "s",
            gauge("ambit_root_remaining_seconds", "min by (instance)"),
            "{{instance}}",
        ),
        graph(
            "First certificates and renewals",
            "cps",
            own_rate("ambit_certificates_received_total", "instance"),
            "{{instance}}",
        ),
        graph(
            "Attempts that failed",
            "cps",
            own_rate("ambit_certificate_issue_errors_total", "instance"),
            "{{instance}}",
        ),
    ]
}

fn node_discovery() -> Vec<Panel> {
    vec![
        graph("Messages", "cps", own_rate("istio_xds_message_total", "url"), "{{url}}"),
        graph("Bytes", "Bps", own_rate("istio_xds_message_bytes_total", "url"), "{{url}}"),
        graph(
            "Control plane away",
            "s",
            gauge("ambit_control_plane_away_seconds", "max by (instance)"),
            "{{instance}}",
        ),
        graph(
            "Streams ended",
            "cps",
            own_rate("istio_xds_connection_terminations_total", "reason"),
            "{{reason}}",
        ),
        graph(
            "Policies not held",
            "short",
            gauge("ambit_policy_unresolved_refs", "sum by (instance)"),
            "{{instance}}",
        ),
        panel(
            "Self-tests",
            Stat,
            "short",
            vec![(gauge("ambit_selftest_result", "min by (test)"), "{{test}}")],
        ),
    ]
}

fn node_headroom() -> Vec<Panel> {
    let mut panels = headroom();
    let lost = own_rate("ambit_flow_records_lost_total", "cause");
    panels.push(graph("Flow records pushed out or lost", "cps", lost, "{{cause}}"));
    panels
}

/// The proxies of layer 7.
pub(super) fn waypoint() -> Board {
    Board {
        path: "deploy/dashboards/waypoint.json",
        uid: "ambit-waypoint",
        title: "Ambit: waypoint",
        about: "The proxies of layer 7: requests, routes, retries, refusals, cost.",
        variables: vec![Variable {
            name: "instance",
            label: "Waypoint",
            query: r#"label_values(istio_build{component="waypoint"}, instance)"#,
        }],
        rows: vec![
            ("Program", versioned_process()),
            (
                "Requests",
                layer7(
                    r#"reporter="waypoint",instance=~"$instance""#,
                    "destination_service_name",
                    "{{destination_service_name}}",
                ),
            ),
            ("Routes", waypoint_routes()),
            ("Refusals", waypoint_refusals()),
            ("Headroom", waypoint_headroom()),
        ],
    }
}

fn waypoint_routes() -> Vec<Panel> {
    vec![
        graph(
            "By route and backend",
            "reqps",
            own_rate("ambit_waypoint_route_requests_total", "route, rule, backend"),
            "{{route}} {{rule}} {{backend}}",
        ),
        panel(
            "Attempts and retries",
            Graph,
            "reqps",
            vec![
                (own_rate("ambit_waypoint_attempts_total", ""), "attempts"),
                (own_rate("ambit_waypoint_retries_total", ""), "retries"),
            ],
        ),
        panel(
            "Left out and out of budget",
            Graph,
            "cps",
            vec![
                (own_rate("ambit_waypoint_ejections_total", ""), "ejected"),
                (own_rate("ambit_waypoint_retry_budget_spent_total", ""), "budget spent"),
            ],
        ),
        panel(
            "Bodies, p95",
            Graph,
            "bytes",
            vec![
                (
                    quantile(
                        "0.95",
                        "istio_request_bytes",
                        r#"reporter="waypoint",instance=~"$instance""#,
                        "",
                    ),
                    "requests",
                ),
                (
                    quantile(
                        "0.95",
                        "istio_response_bytes",
                        r#"reporter="waypoint",instance=~"$instance""#,
                        "",
                    ),
                    "responses",
                ),
            ],
        ),
    ]
}

fn waypoint_refusals() -> Vec<Panel> {
    vec![
        graph(
            "By policy",
            "reqps",
            own_rate("ambit_waypoint_denials_total", "action, policy, reason"),
            "{{action}} {{policy}} {{reason}}",
        ),
        panel(
            "Tunnels and streams, by code",
            Graph,
            "cps",
            vec![
                (own_rate("ambit_waypoint_tunnels_refused_total", "code"), "tunnel {{code}}"),
                (own_rate("ambit_waypoint_streams_refused_total", "code"), "stream {{code}}"),
            ],
        ),
        panel(
            "Broken HTTP and dismissed clients",
            Graph,
            "cps",
            vec![
                (own_rate("ambit_waypoint_protocol_violations_total", "kind"), "{{kind}}"),
                (own_rate("ambit_waypoint_clients_dismissed_total", "cause"), "{{cause}}"),
            ],
        ),
        panel(
            "External authorizers and key sets",
            Graph,
            "cps",
            vec![
                (own_rate("ambit_waypoint_authorizer_answers_total", "result"), "authorizer {{result}}"),
                (own_rate("ambit_waypoint_jwks_fetches_total", "outcome"), "keys {{outcome}}"),
            ],
        ),
    ]
}

fn waypoint_headroom() -> Vec<Panel> {
    let mut panels = headroom();
    panels.extend([
        graph(
            "Control plane away",
            "s",
            gauge("ambit_control_plane_away_seconds", "max by (instance)"),
            "{{instance}}",
        ),
        graph("Spans dropped", "cps", own_rate("ambit_trace_spans_dropped_total", "cause"), "{{cause}}"),
    ]);
    panels
}

/// The replicas of the control plane.
pub(super) fn control_plane() -> Board {
    Board {
        path: "deploy/dashboards/control-plane.json",
        uid: "ambit-control-plane",
        title: "Ambit: control plane",
        about: "What is served, to whom, and how far they are.",
        variables: vec![Variable {
            name: "instance",
            label: "Replica",
            query: "label_values(ambit_config_revision, instance)",
        }],
        rows: vec![
            ("Program", process()),
            ("Configuration", control_plane_configuration()),
            ("Callers", control_plane_callers()),
            ("Headroom", headroom()),
        ],
    }
}

fn control_plane_configuration() -> Vec<Panel> {
    vec![
        graph("Changes", "cps", own_rate("ambit_config_changes_total", ""), "changes"),
        panel(
            "Revision published and least acknowledged",
            Graph,
            "short",
            vec![
                (gauge("ambit_config_revision", "max"), "published"),
                (gauge("ambit_config_acked_revision_least", "min"), "least acknowledged"),
            ],
        ),
        graph(
            "Proxies by revision",
            "short",
            gauge("ambit_config_version_info", "sum by (version)"),
            "{{version}}",
        ),
        graph("Streams", "short", gauge("ambit_xds_streams", "sum by (instance)"), "{{instance}}"),
        graph("Rejected, by kind", "cps", own_rate("ambit_config_rejected_total", "kind"), "{{kind}}"),
        panel("Objects refused", Stat, "short", vec![(gauge("ambit_manifest_problems", "max"), "objects")]),
        graph(
            "Since the last acknowledgement",
            "s",
            "time() - ambit_config_last_ack_timestamp_seconds".to_owned(),
            "{{instance}}",
        ),
        graph("Messages to proxies", "cps", rate("istio_xds_message_total", "", "url"), "{{url}}"),
        graph("Bytes to proxies", "Bps", rate("istio_xds_message_bytes_total", "", "url"), "{{url}}"),
    ]
}

fn control_plane_callers() -> Vec<Panel> {
    vec![
        graph("Certificates issued", "cps", own_rate("ambit_certificates_issued_total", ""), "issued"),
        graph(
            "Callers refused, by check",
            "cps",
            own_rate("ambit_callers_refused_total", "cause"),
            "{{cause}}",
        ),
        panel(
            "Handshakes failed and connections shed",
            Graph,
            "cps",
            vec![
                (own_rate("ambit_handshakes_failed_total", ""), "failed"),
                (own_rate("ambit_connections_shed_total", ""), "shed"),
            ],
        ),
    ]
}
