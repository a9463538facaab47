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
    /// Of these, those of one source address; 64.
    pub source_handshakes_max: usize,
    /// Tunnels of one identity, over all its pods; 2048.
    pub peer_tunnels_max: usize,
    /// Frames of a client in a second that carry nothing of a user, on a tunnel or on an HTTP/2 connection in one;
    /// 100. What is sent and received of users pays for more.
    pub control_frames_max: u32,
    /// Requests under way over all clients; beyond it the answer is 503 at once. 10 000.
    pub requests_max: usize,
    /// Of these, those of one caller's identity, over all its pods; half of them if it is not said.
    pub requests_per_caller_max: Option<usize>,
    /// Longest wait for a request's head, from its first byte on; 10 s.
    pub head_timeout: Duration,
    /// How long a client's HTTP/1.1 connection without requests is kept; 5 min.
    pub keep_alive_timeout: Duration,
    /// Longest time a client that is sent a response may take nothing, or next to nothing, of it; 60 s.
    pub stall_timeout: Duration,
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
    /// Longest time without a byte in either direction of a request under way, the wait for its answer included, unless
    /// its rule allows more; 5 min.
    pub idle_timeout: Duration,
    /// The same of a connection that was upgraded to another protocol; 1 h.
    pub upgraded_idle_timeout: Duration,
    /// How long streams and upgraded connections may outlive the record of their endpoint's workload; 30 s.
    ///
    /// As long as there is one, ready or not, they go on.
    pub gone_grace: Duration,
    /// Bytes a second that a request's body has to come with as long as its endpoint waits for it and has not answered;
    /// 100. 0 for none; gRPC needs none.
    pub upload_rate_min: u64,
    /// Over how long they are counted, and how long a body may take to begin; 20 s.
    pub upload_rate_window: Duration,
    /// Idle HTTP/1.1 connections kept to one endpoint; 64.
    pub idle_max: usize,
    /// How long one is kept; 60 s.
    pub idle_keep: Duration,
    /// Copies of requests under way; beyond it mirrors get nothing. 64.
    pub mirrors_max: usize,
    /// Largest `grpc-timeout` that counts; 1 h.
    pub grpc_timeout_max: Duration,
    /// How long clients are still served as ever once the waypoint says that it leaves; 2 s.
    ///
    /// They have heard by then that it is not ready, and new ones go elsewhere.
    pub drain_announce: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tunnel: Arc::new(TunnelSettings { stream_window: 1 << 20, ..TunnelSettings::default() }),
            pool: pool::Limits::default(),
            connect_timeout: Duration::from_secs(10),
            handshakes_max: 512,
            source_handshakes_max: 64,
            peer_tunnels_max: 2048,
            control_frames_max: 100,
            requests_max: 10_000,
            requests_per_caller_max: None,
            head_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
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
            upgraded_idle_timeout: Duration::from_secs(3600),
            gone_grace: Duration::from_secs(30),
            upload_rate_min: 100,
            upload_rate_window: Duration::from_secs(20),
            idle_max: 64,
            idle_keep: Duration::from_secs(60),
            mirrors_max: 64,
            grpc_timeout_max: Duration::from_secs(3600),
            drain_announce: Duration::from_secs(2),
        }
    }
}
