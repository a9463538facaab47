//! gRPC: the service `ambit.test.Echo` and calls to it.

pub(crate) mod calls;
mod direct;
pub(crate) mod service;

/// What the build script generates from `proto/echo.proto`.
#[allow(
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
pub(crate) mod proto {
    tonic::include_proto!("ambit.test");
}
