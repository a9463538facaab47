//! Resident memory of both proxies: before load, for each idle connection, and for each after it moved a burst.
//!
//! The connections are held by the lab's own traffic client, which tells when all are open and when all have moved
//! their burst.

use std::time::Duration;

use anyhow::bail;

use super::{Metric, Size, Values};
use crate::child::{Running, Stop, now};
use crate::contenders::{ECHO, Way};
use crate::cpu::resident_bytes;
use crate::lab::Lab;

/// How long opening all connections, and moving all bursts, may take.
const PATIENCE_SECONDS: u64 = 60;
/// What each connection moves each way in the burst.
const BURST: &str = "256KiB";
/// Pause between two looks at what the client says.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0 * 1024.0;

/// Measures once.
///
/// # Errors
/// If a connection cannot be opened or held.
pub(super) fn run(lab: &Lab, stop: &Stop, way: &Way, size: Size) -> anyhow::Result<Values> {
    let idle = resident(way)?;
    let burst_after = PATIENCE_SECONDS / 3 + size.settle;
    let all = burst_after + PATIENCE_SECONDS + size.settle + PATIENCE_SECONDS;
    let target = std::net::SocketAddr::new(way.host, way.port(ECHO)).to_string();
    let (count, burst_after, all) =
        (size.connections.to_string(), format!("{burst_after}s"), format!("{all}s"));
    let program = lab.program();
    let argv = [
        &program,
        "echoer",
        "client",
        &target,
        "--events",
        "--hold",
        "--connections",
        &count,
        "--duration",
        &all,
        "--burst-after",
        &burst_after,
        "--burst-bytes",
        BURST,
    ];
    let client = Running::start(Some(&way.client), &argv)?;
    wait(stop, &client, "holding", size)?;
    stop.pause(Duration::from_secs(size.settle))?;
    let held = resident(way)?;
    wait(stop, &client, "burst", size)?;
    stop.pause(Duration::from_secs(size.settle))?;
    let after = resident(way)?;
    drop(client);
    Ok(values(&idle, &held, &after, size.connections))
}

fn resident(way: &Way) -> anyhow::Result<Vec<f64>> {
    way.proxies.iter().map(|pid| resident_bytes(*pid)).collect()
}

/// Waits until the client has told `event` for all connections.
fn wait(stop: &Stop, client: &Running, event: &str, size: Size) -> anyhow::Result<()> {
    let open = format!("\"open\":{}", size.connections);
    let end = now() + Duration::from_secs(PATIENCE_SECONDS + size.settle);
    loop {
        let said = client.stderr();
        if said.lines().any(|l| l.contains(event) && l.contains(&open)) {
            return Ok(());
        }
        if now() > end {
            let last = said.lines().next_back().unwrap_or("nothing");
            bail!("{} connections did not reach {event:?}; the client said last: {last}", size.connections);
        }
        stop.pause(LOOK_AGAIN)?;
    }
}

fn values(idle: &[f64], held: &[f64], after: &[f64], connections: usize) -> Values {
    let count = connections as f64;
    let rows = [
        (Metric::IdleNear, Metric::HeldNear, Metric::BurstNear),
        (Metric::IdleFar, Metric::HeldFar, Metric::BurstFar),
    ];
    let mut values = Values::new();
    for ((row, idle), (held, after)) in rows.into_iter().zip(idle).zip(held.iter().zip(after)) {
        values.insert(row.0, idle / MIB);
        values.insert(row.1, (held - idle) / 1024.0 / count);
        values.insert(row.2, (after - idle) / 1024.0 / count);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_for_each_connection_over_idle() {
        let got = values(&[MIB, 2.0 * MIB], &[MIB + 40_960.0, 3.0 * MIB], &[MIB, 2.0 * MIB], 8);
        assert_eq!(got[&Metric::IdleNear], 1.0);
        assert_eq!(got[&Metric::HeldNear], 5.0);
        assert_eq!(got[&Metric::HeldFar], 128.0);
        assert_eq!(got[&Metric::BurstFar], 0.0);
        assert!(values(&[], &[], &[], 8).is_empty(), "no proxy, no memory");
    }
}
