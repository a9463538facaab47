//! Bounds of everything a client or an upstream can make the waypoint hold or wait for.

use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::pool;
use ambit_net::tunnel::TunnelSettings;

/// Bounds, with the defaults that the documentation names.
#[derive(Debug, Clone)]
pub struct Limits {
    /// HTTP/2 of tunnels, in both directions.
    pub tunnel: Arc<TunnelSettings>,
    /// Tunnels kept to one endpoint.
    pub pool: pool::Limits,
    /// Longest wait for TCP to an endpoint; 10 s.
    pub connect_timeout: Duration,
    /// TLS handshakes under way; 512.
    pub handshakes_max: usize,
    /// Requests under way over all clients; beyond it the answer is 503 at once. 10 000.
    pub requests_max: usize,
    /// Longest wait for a request's head; 10 s.
    pub head_timeout: Duration,
    /// Bytes of a request's head, in HTTP/2 decoded; 64 KiB.
    pub head_bytes_max: usize,
    /// Fields of a request's head; 100.
    pub head_fields_max: usize,
    /// How long the first bytes are waited for where the protocol is not declared; 50 ms.
    pub detect_wait: Duration,
    /// HTTP/2 streams of one client connection; 200.
    pub streams_max: u32,
    /// HTTP/2 window of one stream; 256 KiB.
    pub stream_window: u32,
    /// HTTP/2 window of one connection; 1 MiB.
    pub connection_window: u32,
    /// Bytes of a response that may wait to be sent on one HTTP/2 stream; 128 KiB.
    pub send_buffer: usize,
    /// Requests a client connection may cancel in a second with fewer completed; 100.
    pub resets_max: u32,
    /// Bytes of a request's body that are held so that it can be sent again; 64 KiB.
    pub replay_bytes_max: usize,
    /// Longest time without a byte in either direction of a request under way; 5 min.
    pub idle_timeout: Duration,
    /// Idle HTTP/1.1 connections kept to one endpoint; 64.
    pub idle_max: usize,
    /// How long one is kept; 60 s.
    pub idle_keep: Duration,
    /// Copies of requests under way; beyond it mirrors get nothing. 64.
    pub mirrors_max: usize,
    /// Largest `grpc-timeout` that counts; 1 h.
    pub grpc_timeout_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tunnel: Arc::new(TunnelSettings { stream_window: 1 << 20, ..TunnelSettings::default() }),
            pool: pool::Limits::default(),
            connect_timeout: Duration::from_secs(10),
            handshakes_max: 512,
            requests_max: 10_000,
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 64 << 10,
            head_fields_max: 100,
            detect_wait: Duration::from_millis(50),
            streams_max: 200,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            send_buffer: 128 << 10,
            resets_max: 100,
            replay_bytes_max: 64 << 10,
            idle_timeout: Duration::from_secs(300),
            idle_max: 64,
            idle_keep: Duration::from_secs(60),
            mirrors_max: 64,
            grpc_timeout_max: Duration::from_secs(3600),
        }
    }
}
