//! What a container's probes ask, parsed once from its declaration. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One question to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// GET; any answer from 200 to 399 is good. Redirects are not followed.
    Http {
        /// Over TLS, whose certificate is not looked at.
        tls: bool,
        /// Where to; none is the pod's own address.
        host: Option<String>,
        /// The port.
        port: u16,
        /// Path and query, beginning with a slash.
        path: String,
        /// Headers to send besides the usual ones.
        headers: Vec<(String, String)>,
    },
    /// A connection that is accepted is good.
    Tcp {
        /// Where to; none is the pod's own address.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// A command in the container; exit code 0 is good.
    Exec(Vec<String>),
    /// `grpc.health.v1.Health/Check`; SERVING is good.
    Grpc {
        /// The port.
        port: u16,
        /// The service asked about; empty asks about the server.
        service: String,
    },
}

/// A question with its rhythm. Defaults are the Kubernetes API's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What to ask.
    pub check: Check,
    /// From the container's start to the first question. Default 0.
    pub initial_delay: Duration,
    /// From question to question. Default 10 s.
    pub period: Duration,
    /// How long an answer may take. Default 1 s.
    pub timeout: Duration,
    /// Bad answers in a row that count. Default 3.
    pub failure_threshold: u32,
    /// Good answers in a row that count. Default 1.
    pub success_threshold: u32,
}

/// A container's probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// Until it succeeds, the others rest.
    pub startup: Option<Probe>,
    /// When it fails, the container is restarted.
    pub liveness: Option<Probe>,
    /// While it fails, the container is not ready.
    pub readiness: Option<Probe>,
}

impl Probes {
    /// Reads the probes of a container.
    ///
    /// # Errors
    /// Says which probe asks nothing, or names a port that the container does not have.
    pub fn of(container: &core::Container) -> Result<Self, String> {
        let one = |field: &str, probe: &Option<core::Probe>| {
            probe.as_ref().map(|p| parse(container, p)).transpose().map_err(|e| format!("{field}: {e}"))
        };
        Ok(Self {
            startup: one("startupProbe", &container.startup_probe)?,
            liveness: one("livenessProbe", &container.liveness_probe)?,
            readiness: one("readinessProbe", &container.readiness_probe)?,
        })
    }
}

fn parse(container: &core::Container, probe: &core::Probe) -> Result<Probe, String> {
    let seconds = |value: Option<i32>, least: u64, default: u64| {
        let value = value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v >= least);
        Duration::from_secs(value.unwrap_or(default))
    };
    let times = |value: Option<i32>, default: u32| {
        value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
    };
    Ok(Probe {
        check: check(container, probe)?,
        initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
        period: seconds(probe.period_seconds, 1, 10),
        timeout: seconds(probe.timeout_seconds, 1, 1),
        failure_threshold: times(probe.failure_threshold, 3),
        success_threshold: times(probe.success_threshold, 1),
    })
}

fn check(container: &core::Container, probe: &core::Probe) -> Result<Check, String> {
    if let Some(http) = &probe.http_get {
        let path = http.path.as_deref().unwrap_or("/");
        let headers = http.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
        return Ok(Check::Http {
            tls: http.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: http.host.clone().filter(|h| !h.is_empty()),
            port: port(container, &http.port)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.collect(),
        });
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|h| !h.is_empty());
        return Ok(Check::Tcp { host, port: port(container, &tcp.port)? });
    }
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return if command.is_empty() {
            Err("exec.command is empty".to_owned())
        } else {
            Ok(Check::Exec(command))
        };
    }
    if let Some(grpc) = &probe.grpc {
        let port = port(container, &IntOrString::Int(grpc.port))?;
        return Ok(Check::Grpc { port, service: grpc.service.clone().unwrap_or_default() });
    }
    Err("it asks nothing; give it one of httpGet, tcpSocket, exec, grpc".to_owned())
}

fn port(container: &core::Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut declared = container.ports.iter().flatten();
            let named = declared.find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let valid = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    valid.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("port {number} is not 1 to 65535"),
        IntOrString::String(name) => {
            let names = container.ports.iter().flatten().filter_map(|p| p.name.as_deref());
            format!("port {name:?} is none of the container's: {}", names.collect::<Vec<_>>().join(", "))
        }
    })
}
