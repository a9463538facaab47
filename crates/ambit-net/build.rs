//! Generates the gRPC clients and servers of the services in ambit-xds/proto; the messages are ambit-xds' own.

/// Cargo runs build scripts in the directory of their package.
const PROTO: &str = "../ambit-xds/proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let files = ["envoy/service/discovery/v3/discovery.proto", "istio/ca.proto", "ambit/observe.proto"];
    let descriptors = protox::compile(files, [PROTO])?;
    tonic_prost_build::configure()
        .extern_path(".google.protobuf.Any", "::ambit_xds::any::Any")
        .extern_path(".google.rpc", "::ambit_xds::proto::google::rpc")
        .extern_path(".envoy.service.discovery.v3", "::ambit_xds::proto::envoy::service::discovery::v3")
        .extern_path(".ambit.observe.v1", "::ambit_xds::proto::ambit::observe::v1")
        .extern_path(".istio.v1.auth", "::ambit_xds::proto::istio::v1::auth")
        .include_file("services.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
