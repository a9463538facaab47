//! What a client is to do, checked before it begins. Pure.

use std::time::Duration;

use super::frame::PAYLOAD_BYTES_MAX;

/// Connections one client opens at most.
pub const CONNECTIONS_MAX: u64 = 10_000_000;
/// Connections one client has open at once at most.
pub const OPEN_MAX: u64 = 60_000;
/// Descriptors a client needs besides its connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// How connections follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Each of so many workers opens one after the other, as fast as they are answered.
    Closed {
        /// Workers.
        workers: u64,
    },
    /// So many a second, whether those before have ended or not.
    Open {
        /// Connections a second.
        rate: f64,
    },
    /// All are opened, at this rate if there is one, and stay open to the end.
    Held {
        /// Connections a second while they are opened; none opens them 64 at a time.
        rate: Option<f64>,
        /// A small frame on each connection that often; none leaves them idle.
        interval: Option<Duration>,
        /// So many bytes on each connection at that time after the start.
        burst: Option<(Duration, u64)>,
    },
}

/// What a client is asked, as written on its command line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// HOST:PORT.
    pub target: String,
    /// How many connections.
    pub connections: Option<u64>,
    /// How many a second.
    pub rate: Option<f64>,
    /// How long.
    pub duration: Option<Duration>,
    /// Keep them open.
    pub hold: bool,
    /// How many workers.
    pub concurrency: Option<u64>,
    /// Payload of each connection.
    pub payload_bytes: u64,
    /// Payload of each frame.
    pub frame_bytes: usize,
    /// Between two small frames of a held connection.
    pub interval: Option<Duration>,
    /// When held connections move their burst.
    pub burst_after: Option<Duration>,
    /// How much that is.
    pub burst_bytes: u64,
    /// The server speaks first.
    pub server_first: bool,
    /// Close the sending side right after the last frame.
    pub half_close: bool,
    /// Names of servers that may answer.
    pub expect_server: Vec<String>,
    /// How long opening may take.
    pub connect_timeout: Duration,
    /// How long nothing may come although something is due.
    pub stall_timeout: Duration,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// HOST:PORT; a name is resolved anew for each connection.
    pub target: String,
    /// How many connections at most.
    pub connections: u64,
    /// After that time no new one is opened, and held ones end; none ends with the last connection.
    pub duration: Option<Duration>,
    /// How they follow each other.
    pub load: Load,
    /// Payload of each connection, in bytes, sent as soon as it is open.
    pub payload_bytes: u64,
    /// Payload of each frame, in bytes.
    pub frame_bytes: usize,
    /// Whether the server speaks first.
    pub server_first: bool,
    /// Whether the sending side is closed right after the last frame.
    pub half_close: bool,
    /// Names of servers that may answer; empty allows any.
    pub expect_server: Vec<String>,
    /// How long opening may take.
    pub connect_timeout: Duration,
    /// How long nothing may come although something is due.
    pub stall_timeout: Duration,
}

/// Why a wish is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {what}")]
pub struct PlanError {
    /// The option that is wrong.
    pub option: &'static str,
    /// What is wrong and what to do.
    pub what: String,
}

fn wrong<T>(option: &'static str, what: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError { option, what: what.into() })
}

impl Plan {
    /// Checks a wish; `descriptors` is how many this process may have open.
    ///
    /// # Errors
    /// Names the option that is wrong, and what to do.
    pub fn of(wish: Wish, descriptors: u64) -> Result<Self, PlanError> {
        check_target(&wish.target)?;
        if wish.rate.is_some_and(|r| !r.is_finite() || !(0.001..=1_000_000.0).contains(&r)) {
            return wrong("--rate", "give connections a second, from 0.001 to 1000000");
        }
        if !(1..=PAYLOAD_BYTES_MAX).contains(&wish.frame_bytes) {
            return wrong("--frame-bytes", format!("give 1 to {PAYLOAD_BYTES_MAX}"));
        }
        for (option, time) in [
            ("--duration", wish.duration),
            ("--interval", wish.interval),
            ("--connect-timeout", Some(wish.connect_timeout)),
            ("--stall-timeout", Some(wish.stall_timeout)),
        ] {
            if time.is_some_and(|t| t.is_zero()) {
                return wrong(option, "give more than 0");
            }
        }
        let load = load(&wish)?;
        let connections = connections(&wish)?;
        let open = match load {
            Load::Closed { workers } => workers,
            Load::Held { .. } => connections,
            // Those of an open load that do not end are bounded when they are opened.
            Load::Open { .. } => 1,
        };
        if open > OPEN_MAX || open + DESCRIPTORS_SPARE > descriptors {
            let most = OPEN_MAX.min(descriptors.saturating_sub(DESCRIPTORS_SPARE));
            return wrong(
                "--connections",
                format!("{open} at once are more than this process may have: {most}"),
            );
        }
        Ok(Self {
            target: wish.target,
            connections,
            duration: wish.duration,
            load,
            payload_bytes: wish.payload_bytes,
            frame_bytes: wish.frame_bytes,
            server_first: wish.server_first,
            half_close: wish.half_close,
            expect_server: wish.expect_server,
            connect_timeout: wish.connect_timeout,
            stall_timeout: wish.stall_timeout,
        })
    }
}

fn check_target(target: &str) -> Result<(), PlanError> {
    let parts = target.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(port)) if port > 0 => Ok(()),
        _ => wrong("TARGET", format!("{target:?} is not HOST:PORT; write IPv6 addresses as [::1]:80")),
    }
}

fn load(wish: &Wish) -> Result<Load, PlanError> {
    if !wish.hold {
        for (option, given) in
            [("--interval", wish.interval.is_some()), ("--burst-after", wish.burst_after.is_some())]
        {
            if given {
                return wrong(option, "only held connections have it; add --hold");
            }
        }
        return match (wish.rate, wish.concurrency) {
            (Some(_), Some(_)) => wrong(
                "--concurrency",
                "a rate opens connections whatever happens to those before; leave one out",
            ),
            (Some(rate), None) => Ok(Load::Open { rate }),
            (None, Some(0)) => wrong("--concurrency", "give at least 1"),
            (None, workers) => Ok(Load::Closed { workers: workers.unwrap_or(1) }),
        };
    }
    if wish.duration.is_none() {
        return wrong("--duration", "held connections need an end; say how long");
    }
    if wish.concurrency.is_some() {
        return wrong("--concurrency", "held connections are all open at once; leave it out");
    }
    let burst = match (wish.burst_after, wish.burst_bytes) {
        (None, 0) => None,
        (None, _) => return wrong("--burst-bytes", "say when with --burst-after"),
        (Some(_), 0) => return wrong("--burst-after", "say how much with --burst-bytes"),
        (Some(after), bytes) if wish.duration.is_some_and(|d| after < d) => Some((after, bytes)),
        (Some(_), _) => return wrong("--burst-after", "it has to be before the end of --duration"),
    };
    Ok(Load::Held { rate: wish.rate, interval: wish.interval, burst })
}

fn connections(wish: &Wish) -> Result<u64, PlanError> {
    let connections = match (wish.connections, wish.duration) {
        (Some(n), _) => n,
        (None, Some(_)) if wish.hold => 1,
        (None, Some(_)) => CONNECTIONS_MAX,
        (None, None) => 1,
    };
    if connections == 0 || connections > CONNECTIONS_MAX {
        return wrong("--connections", format!("give 1 to {CONNECTIONS_MAX}"));
    }
    Ok(connections)
}

#[cfg(test)]
mod tests;
