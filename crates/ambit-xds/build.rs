//! Compiles `proto/` into Rust messages without protoc.

const FILES: [&str; 8] = [
    "google/rpc/status.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "istio/workload.proto",
    "istio/authorization.proto",
    "istio/zds.proto",
    "istio/ca.proto",
    "ambit.proto",
    "ambit/waypoint.proto",
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
