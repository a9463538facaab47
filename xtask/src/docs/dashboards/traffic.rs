//! Boards of what goes through the mesh, and of the identities it goes under.

use super::Kind::{Heat, Stat, Table};
use super::parts::{NAMESPACE, graph, layer4, layer7, panel, rate};
use super::{Board, Panel, Variable};

/// Who is called, over everything.
pub(super) fn mesh() -> Board {
    Board {
        path: "deploy/dashboards/mesh.json",
        uid: "ambit-mesh",
        title: "Ambit: mesh",
        about: "Who is called, how well that goes, and what is refused.",
        variables: vec![NAMESPACE],
        rows: vec![
            (
                "Requests through waypoints",
                layer7(
                    r#"reporter="waypoint",destination_service_namespace=~"$namespace""#,
                    "destination_service_name",
                    "{{destination_service_name}}",
                ),
            ),
            (
                "Connections",
                layer4(
                    r#"reporter="destination",destination_workload_namespace=~"$namespace""#,
                    "destination_workload",
                    "{{destination_workload}}",
                ),
            ),
            ("Safety", mesh_safety()),
            ("Objectives", mesh_objectives()),
        ],
    }
}

fn mesh_safety() -> Vec<Panel> {
    vec![
        graph(
            "Refused, by code and policy",
            "cps",
            rate("ambit_connections_refused_total", "", "code, policy"),
            "{{code}} {{policy}}",
        ),
        graph(
            "Refused by waypoints, by code and policy",
            "reqps",
            rate("ambit_waypoint_denials_total", "", "reason, policy"),
            "{{reason}} {{policy}}",
        ),
        graph(
            "Plaintext let in, by namespace",
            "cps",
            rate("ambit_plaintext_accepted_total", r#"namespace=~"$namespace""#, "namespace, mode, cause"),
            "{{namespace}} {{mode}} {{cause}}",
        ),
        graph(
            "Would be refused by dry-run policies",
            "cps",
            rate("ambit_policy_shadow_denied_total", "", "policy"),
            "{{policy}}",
        ),
        panel(
            "Pods not protected",
            Stat,
            "short",
            vec![("sum(ambit_workloads_expected) - sum(ambit_workloads_captured)".to_owned(), "pods")],
        ),
        panel(
            "Services without their waypoint",
            Table,
            "short",
            vec![("max by (kind, service) (ambit_waypoint_unbound)".to_owned(), "")],
        ),
    ]
}

fn mesh_objectives() -> Vec<Panel> {
    vec![
        graph(
            "Budget burn over an hour (1 = all of it in 30 days)",
            "short",
            "destination_service:ambit_requests:error_ratio_rate1h / 0.001".to_owned(),
            "{{destination_service_name}}",
        ),
        graph(
            "Budget burn over six hours",
            "short",
            "destination_service:ambit_requests:error_ratio_rate6h / 0.001".to_owned(),
            "{{destination_service_name}}",
        ),
    ]
}

/// One workload.
pub(super) fn workload() -> Board {
    Board {
        path: "deploy/dashboards/workload.json",
        uid: "ambit-workload",
        title: "Ambit: workload",
        about: "One workload: who calls it, and whom it calls.",
        variables: vec![
            NAMESPACE,
            Variable {
                name: "workload",
                label: "Workload",
                query: r#"label_values(istio_tcp_connections_opened_total{destination_workload_namespace=~"$namespace"}, destination_workload)"#,
            },
        ],
        rows: vec![
            (
                "Called",
                layer4(
                    r#"reporter="destination",destination_workload_namespace=~"$namespace",destination_workload=~"$workload""#,
                    "source_workload",
                    "{{source_workload}}",
                ),
            ),
            (
                "Calls",
                layer4(
                    r#"reporter="source",source_workload_namespace=~"$namespace",source_workload=~"$workload""#,
                    "destination_service_name",
                    "{{destination_service_name}}",
                ),
            ),
            (
                "Requests to it through waypoints",
                layer7(
                    r#"reporter="waypoint",destination_workload_namespace=~"$namespace",destination_workload=~"$workload""#,
                    "source_workload",
                    "{{source_workload}}",
                ),
            ),
        ],
    }
}

/// Identities and the roots they hang on.
pub(super) fn certificates() -> Board {
    Board {
        path: "deploy/dashboards/certificates.json",
        uid: "ambit-certificates",
        title: "Ambit: certificates",
        about: "How long identities are good for, and whether new ones are issued.",
        variables: vec![],
        rows: vec![("Certificates", certificates_held()), ("Issuance", certificates_issuance())],
    }
}

fn certificates_held() -> Vec<Panel> {
    vec![
        graph(
            "Least part of a life that is left",
            "percentunit",
            "min by (instance) (ambit_certificate_remaining_ratio)".to_owned(),
            "{{instance}}",
        ),
        panel(
            "Held, by what they have left",
            Heat,
            "short",
            vec![("sum by (le) (ambit_certificate_remaining_seconds_bucket)".to_owned(), "{{le}}")],
        ),
        panel(
            "Held",
            Stat,
            "short",
            vec![("sum(ambit_certificate_remaining_seconds_count)".to_owned(), "certificates")],
        ),
        panel("Root, time left", Stat, "s", vec![("min(ambit_root_remaining_seconds)".to_owned(), "root")]),
        graph(
            "Clocks, ahead of the control plane",
            "s",
            "max by (instance) (ambit_clock_offset_seconds)".to_owned(),
            "{{instance}}",
        ),
    ]
}

fn certificates_issuance() -> Vec<Panel> {
    vec![
        graph("Issued", "cps", rate("ambit_certificates_issued_total", "", "instance"), "{{instance}}"),
        graph(
            "Refused or failed, by cause",
            "cps",
            rate("ambit_certificate_issue_errors_total", "", "instance, cause"),
            "{{instance}} {{cause}}",
        ),
        graph(
            "Handshakes by key exchange",
            "cps",
            rate("ambit_handshake_seconds_count", "", "group, role"),
            "{{group}} {{role}}",
        ),
    ]
}
