//! Bounds of what clients and upstreams may take, as far as operators have a reason to change them.
//!
//! Their defaults are those of [`Limits`]; a test holds the one against the other.

use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::pool;
use ambit_net::tunnel::TunnelSettings;
use clap::Args;

use super::duration;
use crate::Limits;

/// Largest number that is taken where something is counted: more is a slip of the pen, and no bound.
const COUNT_MAX: usize = 10_000_000;

/// Settings of the bounds.
#[derive(Debug, Clone, Args)]
pub struct Bounds {
    /// Requests under way over all clients; further ones are answered 503 at once.
    #[arg(long, env = "AMBIT_REQUESTS_MAX", default_value_t = 10_000, value_parser = count)]
    pub requests_max: usize,
    /// TLS handshakes under way; further connections are closed.
    #[arg(long, env = "AMBIT_HANDSHAKES_MAX", default_value_t = 512, value_parser = count)]
    pub handshakes_max: usize,
    /// Copies of requests under way; beyond it mirrors get nothing.
    #[arg(long, env = "AMBIT_MIRRORS_MAX", default_value_t = 64, value_parser = count)]
    pub mirrors_max: usize,
    /// HTTP/2 streams of one client connection.
    #[arg(long, env = "AMBIT_STREAMS_MAX", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_max: u32,
    /// Requests a client connection may cancel in a second with fewer completed.
    #[arg(long, env = "AMBIT_RESETS_MAX", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub resets_max: u32,
    /// Bytes of a request's head.
    #[arg(long, env = "AMBIT_HEAD_BYTES_MAX", default_value_t = 64 << 10, value_parser = count)]
    pub head_bytes_max: usize,
    /// Fields of a request's head.
    #[arg(long, env = "AMBIT_HEAD_FIELDS_MAX", default_value_t = 100, value_parser = count)]
    pub head_fields_max: usize,
    /// Longest wait for a request's head.
    #[arg(long, env = "AMBIT_HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,
    /// Bytes of a request's body that are held so that it can be sent again.
    #[arg(long, env = "AMBIT_REPLAY_BYTES_MAX", default_value_t = 64 << 10, value_parser = count)]
    pub replay_bytes_max: usize,
    /// Longest time without a byte in either direction of a request under way.
    #[arg(long, env = "AMBIT_REQUEST_IDLE_TIMEOUT", default_value = "5m", value_parser = duration)]
    pub request_idle_timeout: Duration,
    /// How long the first bytes are waited for where a port does not declare its protocol.
    #[arg(long, env = "AMBIT_DETECT_WAIT", default_value = "50ms", value_parser = duration)]
    pub detect_wait: Duration,
    /// Longest wait for TCP to an endpoint.
    #[arg(long, env = "AMBIT_CONNECT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Idle HTTP/1.1 connections kept to one endpoint.
    #[arg(long, env = "AMBIT_IDLE_CONNECTIONS_MAX", default_value_t = 64, value_parser = count)]
    pub idle_connections_max: usize,
    /// Streams on one tunnel to an endpoint.
    #[arg(long, env = "POOL_MAX_STREAMS_PER_CONNECTION", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub pool_max_streams: u32,
    /// How long a tunnel without streams is kept.
    #[arg(long, env = "POOL_UNUSED_RELEASE_TIMEOUT", default_value = "5m", value_parser = duration)]
    pub pool_unused_timeout: Duration,
    /// Proxies before the mesh whose `X-Forwarded-For` is believed.
    #[arg(long, env = "AMBIT_TRUSTED_HOPS", default_value_t = 0)]
    pub trusted_hops: u8,
}

impl Bounds {
    /// The bounds of the way of a request.
    pub fn limits(&self) -> Limits {
        let defaults = Limits::default();
        let tunnel = TunnelSettings {
            connect_timeout: self.connect_timeout + Duration::from_secs(5),
            ..TunnelSettings::clone(&defaults.tunnel)
        };
        Limits {
            tunnel: Arc::new(tunnel),
            pool: pool::Limits {
                streams_per_tunnel: self.pool_max_streams,
                idle_timeout: self.pool_unused_timeout,
                ..defaults.pool
            },
            connect_timeout: self.connect_timeout,
            handshakes_max: self.handshakes_max,
            requests_max: self.requests_max,
            head_timeout: self.head_timeout,
            head_bytes_max: self.head_bytes_max,
            head_fields_max: self.head_fields_max,
            detect_wait: self.detect_wait,
            streams_max: self.streams_max,
            resets_max: self.resets_max,
            replay_bytes_max: self.replay_bytes_max,
            idle_timeout: self.request_idle_timeout,
            idle_max: self.idle_connections_max,
            mirrors_max: self.mirrors_max,
            ..defaults
        }
    }
}

/// A number of things, at least one.
fn count(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=COUNT_MAX).contains(number));
    number.ok_or_else(|| format!("{text:?} is no number from 1 to {COUNT_MAX}"))
}
