//! Generates clients and servers of the gRPC services that the tests' peers speak.
//!
//! Messages that the programs under test have too are theirs: `ambit_xds` holds them.

/// Cargo runs build scripts in the directory of their package.
const PROTO: &str = "proto";
/// Where the services stand that waypoints call.
const CALLED: &str = "../crates/ambit-xds/proto";

const FILES: [&str; 4] = [
    "echo.proto",
    "otlp.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/ratelimit/v3/rls.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    println!("cargo::rerun-if-changed={CALLED}");
    let descriptors = protox::compile(FILES, [PROTO, CALLED])?;
    tonic_prost_build::configure()
        .extern_path(".envoy", "::ambit_xds::proto::envoy")
        .extern_path(".google.rpc", "::ambit_xds::proto::google::rpc")
        .compile_fds(descriptors)?;
    Ok(())
}
