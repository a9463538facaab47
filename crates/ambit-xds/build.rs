//! Compiles `proto/` into Rust messages without protoc.

const FILES: [&str; 16] = [
    "google/rpc/status.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/config/core/v3/base.proto",
    "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/config/core/v3/address.proto",
    "envoy/service/auth/v3/attribute_context.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/type/v3/http_status.proto",
    "istio/workload.proto",
    "istio/authorization.proto",
    "istio/zds.proto",
    "istio/ca.proto",
    "ambit.proto",
    "ambit/waypoint.proto",
    "ambit/observe.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Cargo runs build scripts in the directory of their package.
    let descriptors = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new()
        // Ordered maps and shared bytes: equal values encode to equal bytes, and payloads are never copied.
        .btree_map(["."])
        .bytes(["."])
        .extern_path(".google.protobuf.Any", "crate::any::Any")
        .include_file("messages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
