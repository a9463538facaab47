//! The lab: nodes and pods made of network namespaces on one Linux machine, with the real programs inside.
//!
//! It plays the parts a cluster would (scheduler, kubelet, kube-proxy, cluster DNS) and starts the mesh's
//! programs; it never imports one of them. It changes nothing outside the namespaces it made, and what it
//! makes it can find and remove again without any help from the processes that made it.

pub mod address;
pub mod cleanup;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod echoer;
pub mod error;
pub mod exec;
pub mod fault;
pub mod kube;
pub mod kubelet;
pub mod link;
pub mod manifests;
pub mod name;
pub mod paths;
pub mod pod;
pub mod process;
pub mod programs;
pub mod rootless;
pub mod runner;
pub mod schedule;
pub mod service;
pub mod store;
pub mod token;
pub mod tool;
pub mod topology;

pub use error::LabError;
pub use name::LabName;
pub use paths::RunDir;

/// The hidden subcommand that runs a lab's daemon.
pub const DAEMON_COMMAND: &str = "lab-daemon";
