//! Probes over time: when a container is ready, restarted, held back.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::{Kind, Machine, Probes, Step};

/// One row: at that millisecond, what is polled or answered, and what is to be seen.
type Row = (u64, &'static str, &'static str);

#[test]
fn a_container_without_probes_is_ready_when_it_runs() {
    check(json!({}), &[(0, "poll", "idle"), (0, "health", "started ready")]);
}

#[test]
fn readiness_is_asked_eagerly_until_it_has_held_once() {
    check(
        json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 10, "failureThreshold": 2}}),
        &[
            (0, "poll", "run Readiness"),
            (0, "poll", "idle"),
            (0, "health", "started: its probes have not succeeded yet"),
            (5, "Readiness refused", ""),
            (5, "health", "started: readiness probe failed: refused"),
            (5, "poll", "wait 250"),
            (250, "poll", "run Readiness"),
            (251, "Readiness ok", ""),
            (251, "health", "started ready"),
            (251, "poll", "wait 10250"),
            (10250, "poll", "run Readiness"),
            (10251, "Readiness refused", ""),
            (10251, "health", "started ready"),
            (20250, "poll", "run Readiness"),
            (20251, "Readiness refused", ""),
            (20251, "health", "started: readiness probe failed: refused"),
            (20251, "poll", "wait 30250"),
            (30250, "poll", "run Readiness"),
            (30251, "Readiness ok", ""),
            (30251, "health", "started ready"),
        ],
    );
}

#[test]
fn several_successes_can_be_demanded() {
    check(
        json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "successThreshold": 2}}),
        &[
            (0, "poll", "run Readiness"),
            (0, "Readiness ok", ""),
            (0, "health", "started: its probes have not succeeded yet"),
            (0, "poll", "wait 1000"),
            (1000, "poll", "run Readiness"),
            (1000, "Readiness ok", ""),
            (1000, "health", "started ready"),
        ],
    );
}

#[test]
fn liveness_restarts_after_failures_in_a_row() {
    let probe = json!({"livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 2, "failureThreshold": 2, "initialDelaySeconds": 3}});
    check(
        probe,
        &[
            (0, "health", "started ready"),
            (0, "poll", "wait 3000"),
            (3000, "poll", "run Liveness"),
            (3001, "Liveness dead", ""),
            (5000, "poll", "run Liveness"),
            (5001, "Liveness ok", ""),
            (7000, "poll", "run Liveness"),
            (7001, "Liveness dead", ""),
            (9000, "poll", "run Liveness"),
            (9001, "Liveness dead", "restart: liveness probe failed: dead"),
        ],
    );
}

#[test]
fn startup_holds_the_others_back() {
    let probes = json!({
        "startupProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5},
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5, "initialDelaySeconds": 1},
    });
    check(
        probes.clone(),
        &[
            (0, "poll", "run Startup"),
            (0, "poll", "idle"),
            (10, "Startup early", ""),
            (10, "health", ": startup probe failed: early"),
            (1000, "poll", "run Startup"),
            (1500, "Startup ok", ""),
            (1500, "health", "started: readiness probe has not succeeded yet"),
            (1500, "poll", "run Liveness"),
            (1500, "poll", "run Readiness"),
            (1600, "Readiness ok", ""),
            (1600, "health", "started ready"),
        ],
    );
    check(
        probes,
        &[
            (0, "poll", "run Startup"),
            (0, "Startup no", ""),
            (1000, "poll", "run Startup"),
            (1000, "Startup no", ""),
            (2000, "poll", "run Startup"),
            (2000, "Startup no", "restart: startup probe failed: no"),
        ],
    );
}

#[test]
fn a_slow_answer_delays_only_its_own_kind() {
    let probes = json!({
        "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    });
    check(
        probes,
        &[
            (0, "poll", "run Liveness"),
            (0, "poll", "run Readiness"),
            (0, "poll", "idle"),
            (10, "Readiness ok", ""),
            (1000, "poll", "run Readiness"),
            (1010, "Readiness ok", ""),
            (2500, "Liveness ok", ""),
            (2500, "poll", "run Liveness"),
        ],
    );
}

#[test]
fn probes_are_read_with_their_defaults_and_ports() {
    let wrong = [
        (
            json!({"readinessProbe": {}}),
            "readinessProbe: it asks nothing; give it one of httpGet, tcpSocket, exec, grpc",
        ),
        (
            json!({"ports": [{"name": "web", "containerPort": 80}], "livenessProbe": {"tcpSocket": {"port": "wbe"}}}),
            "livenessProbe: port \"wbe\" is none of the container's: web",
        ),
        (json!({"startupProbe": {"httpGet": {"port": 0}}}), "startupProbe: port 0 is not 1 to 65535"),
        (json!({"startupProbe": {"exec": {}}}), "startupProbe: exec.command is empty"),
    ];
    for (fields, want) in wrong {
        assert_eq!(Probes::of(&container(fields)).unwrap_err(), want);
    }
    let fields = json!({
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": "web", "path": "ready", "scheme": "HTTPS"}},
    });
    let probe = Probes::of(&container(fields)).unwrap().readiness.unwrap();
    let rhythm =
        (probe.period.as_secs(), probe.timeout.as_secs(), probe.failure_threshold, probe.success_threshold);
    assert_eq!(rhythm, (10, 1, 3, 1));
    let check = super::super::Check::Http {
        tls: true,
        host: None,
        port: 8080,
        path: "/ready".to_owned(),
        headers: vec![],
    };
    assert_eq!(probe.check, check);
}

#[track_caller]
fn check(probes: Value, rows: &[Row]) {
    let mut machine = Machine::new(&Probes::of(&container(probes)).unwrap());
    for (at, what, want) in rows {
        let now = Duration::from_millis(*at);
        let seen = match *what {
            "poll" => match machine.poll(now) {
                Step::Run(kind, _) => format!("run {kind:?}"),
                Step::WaitUntil(then) => format!("wait {}", then.as_millis()),
                Step::Idle => "idle".to_owned(),
            },
            "health" => {
                let health = machine.health();
                let started = if health.started { "started" } else { "" };
                let why = health.why.map(|w| format!(": {w}")).unwrap_or_default();
                format!("{started}{}{why}", if health.ready { " ready" } else { "" })
            }
            answer => {
                let (kind, answer) = answer.split_once(' ').unwrap();
                let kind = [Kind::Startup, Kind::Liveness, Kind::Readiness]
                    .into_iter()
                    .find(|k| format!("{k:?}") == kind);
                let answer = if answer == "ok" { Ok(()) } else { Err(answer.to_owned()) };
                let restart = machine.handle_result(kind.unwrap(), now, answer);
                restart.map(|why| format!("restart: {why}")).unwrap_or_default()
            }
        };
        assert_eq!(seen, *want, "at {at} ms: {what}");
    }
}

fn container(fields: Value) -> Container {
    let mut container = json!({"name": "main"});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(container).unwrap()
}
