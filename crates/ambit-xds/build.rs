//! Compiles `proto/` into Rust messages without protoc.

use std::path::Path;
use std::{env, io};

const FILES: [&str; 7] = [
    "google/rpc/status.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "istio/workload.proto",
    "istio/authorization.proto",
    "istio/zds.proto",
    "istio/ca.proto",
    "ambit.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let descriptors = protox::compile(FILES, [Path::new(&root).join("proto")])?;
    prost_build::Config::new()
        // Ordered maps and shared bytes: equal values encode to equal bytes, and payloads are never copied.
        .btree_map(["."])
        .bytes(["."])
        .extern_path(".google.protobuf.Any", "crate::any::Any")
        .include_file("messages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
