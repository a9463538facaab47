//! The services that a waypoint itself calls: an authorizer, a rate limit service, a collector of spans. What each
//! answers is told by the request or by flags; what it was asked, it tells.

pub(crate) mod authz;
pub(crate) mod collector;
mod listen;
pub(crate) mod rls;
pub(crate) mod wild;

/// What the build script generates of their services; the messages of Envoy's are `ambit_xds`'s.
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::or_fun_call,
    clippy::manual_let_else,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "generated code is not ours to style"
)]
mod proto {
    /// `envoy.service.auth.v3`.
    pub(super) mod auth {
        tonic::include_proto!("envoy.service.auth.v3");
    }
    /// `envoy.service.ratelimit.v3`.
    pub(super) mod limits {
        tonic::include_proto!("envoy.service.ratelimit.v3");
    }
    /// OpenTelemetry's trace service.
    pub(super) mod otlp {
        tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
    }
}
