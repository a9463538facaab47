//! What is measured, in which units, and one run of it.
//!
//! A run starts a load generator in the client's namespace, reads CPU time around it, and returns numbers. How runs
//! follow each other is not decided here.

use std::collections::BTreeMap;

use anyhow::bail;

use crate::child::Stop;
use crate::contenders::Way;
use crate::cpu::Usage;
use crate::lab::Lab;

mod iperf;
mod memory;
mod wrk;

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// Resident memory: idle, with idle connections, after each moved a burst.
    Memory,
    /// Bulk throughput of one stream.
    Bulk1,
    /// Bulk throughput of four streams.
    Bulk4,
    /// New connections: one HTTP request each.
    Connections,
    /// Requests on one kept connection.
    Requests1,
    /// Requests on 128 kept connections.
    Requests128,
}

impl Measure {
    /// In the order of a run; memory first, while the proxies are fresh.
    pub(crate) const ALL: [Self; 6] =
        [Self::Memory, Self::Bulk1, Self::Bulk4, Self::Connections, Self::Requests1, Self::Requests128];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Bulk1 => "bulk-1",
            Self::Bulk4 => "bulk-4",
            Self::Connections => "connections",
            Self::Requests1 => "requests-1",
            Self::Requests128 => "requests-128",
        }
    }

    /// What its rows are called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Bulk1 => "bulk, 1 stream",
            Self::Bulk4 => "bulk, 4 streams",
            Self::Connections => "new connections",
            Self::Requests1 => "requests, 1 connection",
            Self::Requests128 => "requests, 128 connections",
        }
    }

    /// Whether one run says it all: memory does not vary as time does, and a second run would not start fresh.
    pub(crate) fn is_once(self) -> bool {
        match self {
            Self::Memory => true,
            Self::Bulk1 | Self::Bulk4 | Self::Connections | Self::Requests1 | Self::Requests128 => false,
        }
    }

    /// What one run yields, in the order of the rows.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Memory => &[
                Metric::IdleNear,
                Metric::IdleFar,
                Metric::HeldNear,
                Metric::HeldFar,
                Metric::BurstNear,
                Metric::BurstFar,
            ],
            Self::Bulk1 | Self::Bulk4 => &[Metric::Gbits, Metric::ProxiesPerGib, Metric::MachinePerGib],
            Self::Connections => &[Metric::PerSecond, Metric::ProxiesEach, Metric::MachineEach],
            Self::Requests1 | Self::Requests128 => {
                &[Metric::PerSecond, Metric::P50, Metric::P99, Metric::ProxiesEach, Metric::MachineEach]
            }
        }
    }
}

/// One number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Payload received.
    Gbits,
    /// CPU-seconds of both proxies for each GiB of payload.
    ProxiesPerGib,
    /// Busy seconds of the machine for each GiB of payload, load generators included.
    MachinePerGib,
    /// Requests or connections a second.
    PerSecond,
    /// Median latency.
    P50,
    /// 99th percentile of latency.
    P99,
    /// CPU time of both proxies for each request or connection.
    ProxiesEach,
    /// Busy time of the machine for each request or connection.
    MachineEach,
    /// Resident memory of the client's proxy before any load.
    IdleNear,
    /// Resident memory of the server's proxy before any load.
    IdleFar,
    /// More memory for each idle connection, client's proxy.
    HeldNear,
    /// More memory for each idle connection, server's proxy.
    HeldFar,
    /// The same after each connection moved a burst and went idle again, client's proxy.
    BurstNear,
    /// The same after each connection moved a burst and went idle again, server's proxy.
    BurstFar,
}

impl Metric {
    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gbits => "gbit_per_s",
            Self::ProxiesPerGib => "proxies_cpu_s_per_gib",
            Self::MachinePerGib => "machine_cpu_s_per_gib",
            Self::PerSecond => "per_s",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::ProxiesEach => "proxies_cpu_us_each",
            Self::MachineEach => "machine_cpu_us_each",
            Self::IdleNear => "client_proxy_idle_mib",
            Self::IdleFar => "server_proxy_idle_mib",
            Self::HeldNear => "client_proxy_kib_per_idle_connection",
            Self::HeldFar => "server_proxy_kib_per_idle_connection",
            Self::BurstNear => "client_proxy_kib_per_connection_after_burst",
            Self::BurstFar => "server_proxy_kib_per_connection_after_burst",
        }
    }

    /// How its row is called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gbits => "Gbit/s",
            Self::ProxiesPerGib => "CPU-s/GiB, proxies",
            Self::MachinePerGib => "CPU-s/GiB, machine",
            Self::PerSecond => "per second",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::ProxiesEach => "CPU us each, proxies",
            Self::MachineEach => "CPU us each, machine",
            Self::IdleNear => "idle MiB, client's proxy",
            Self::IdleFar => "idle MiB, server's proxy",
            Self::HeldNear => "KiB/idle connection, client's",
            Self::HeldFar => "KiB/idle connection, server's",
            Self::BurstNear => "KiB/connection after burst, client's",
            Self::BurstFar => "KiB/connection after burst, server's",
        }
    }

    /// Whether what it adds over no mesh is a row of its own.
    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::P50 | Self::P99)
    }
}

/// The numbers of one run.
pub(crate) type Values = BTreeMap<Metric, f64>;

/// How long and how large runs are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Seconds of a run under load.
    pub seconds: u64,
    /// Idle connections of the memory measure.
    pub connections: usize,
    /// Seconds for memory to settle.
    pub settle: u64,
}

/// Runs a measure once.
///
/// # Errors
/// If the load generator or a proxy fails, or nothing got through.
pub(crate) fn run(lab: &Lab, stop: &Stop, measure: Measure, way: &Way, size: Size) -> anyhow::Result<Values> {
    match measure {
        Measure::Memory => memory::run(lab, stop, way, size),
        Measure::Bulk1 => bulk(stop, way, 1, size.seconds),
        Measure::Bulk4 => bulk(stop, way, 4, size.seconds),
        Measure::Connections => wrk::run(lab, stop, way, wrk::Load::CONNECTIONS, size.seconds),
        Measure::Requests1 => wrk::run(lab, stop, way, wrk::Load::ONE, size.seconds),
        Measure::Requests128 => wrk::run(lab, stop, way, wrk::Load::MANY, size.seconds),
    }
}

fn bulk(stop: &Stop, way: &Way, streams: u32, seconds: u64) -> anyhow::Result<Values> {
    let (moved, used) = iperf::run(stop, way, streams, seconds)?;
    let gib = moved.bytes / f64::from(1 << 30);
    if gib <= 0.0 || moved.seconds <= 0.0 {
        bail!("no byte got through");
    }
    let mut values = Values::from([
        (Metric::Gbits, moved.bytes * 8.0 / moved.seconds / 1e9),
        (Metric::MachinePerGib, used.machine / gib),
    ]);
    if !way.proxies.is_empty() {
        values.insert(Metric::ProxiesPerGib, used.proxies / gib);
    }
    Ok(values)
}

/// CPU time for each of `count` requests or connections, in microseconds.
fn each(values: &mut Values, way: &Way, used: Usage, count: f64) {
    values.insert(Metric::MachineEach, used.machine * 1e6 / count);
    if !way.proxies.is_empty() {
        values.insert(Metric::ProxiesEach, used.proxies * 1e6 / count);
    }
}
