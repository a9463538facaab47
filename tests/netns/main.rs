//! The real programs in network namespaces, driven through the lab's command line: the mesh as its users have it.
//!
//! Needs root. Says so and passes where it cannot run, fails there when `AMBIT_REQUIRE_NETNS=1`. `AMBIT_SOAK=1` runs
//! the rows that need minutes in full.

#![expect(clippy::print_stdout, reason = "measured values, for who reads the run")]

mod broken;
mod bundle;
mod cast;
mod certificates;
mod churn;
mod console;
mod cuts;
mod demand;
mod demo;
mod egress;
mod enrol;
mod explain;
mod gathered;
mod gone;
mod hostile;
mod kube;
mod lab_commands;
mod loops;
mod memory;
mod names;
mod newcomer;
mod observed;
mod outage;
mod outputs;
mod policy;
mod programs;
mod prometheus;
mod restart;
mod rootless;
mod selftest;
mod services;
mod sockets;
mod stranger;
mod strict;
mod vanish;
mod views;
mod waypoint;
