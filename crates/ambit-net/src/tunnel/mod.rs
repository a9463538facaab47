//! HBONE tunnels: HTTP/2 over verified TLS, on the `h2` crate.
//!
//! A tunnel is one task that moves frames; streams are handed to other tasks. Settings are bounded on both sides,
//! a silent peer is found by PING, and a tunnel takes no new streams once a certificate of it has run out.

pub mod client;
pub mod keepalive;
mod path;
pub mod server;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// HTTP/2 settings of tunnels.
#[derive(Debug, Clone)]
pub struct TunnelSettings {
    /// Bytes a peer may send on a stream before we take them; 4 MiB (`HTTP2_STREAM_WINDOW_SIZE`).
    pub stream_window: u32,
    /// The same for all streams of a tunnel; 16 MiB (`HTTP2_CONNECTION_WINDOW_SIZE`).
    pub connection_window: u32,
    /// Largest frame we take; 1 MiB (`HTTP2_FRAME_SIZE`).
    pub frame_bytes_max: u32,
    /// Streams a peer may have open on one tunnel; 200.
    pub streams_max: u32,
    /// Bytes of a stream that may wait to be sent; 512 KiB.
    pub send_buffer: usize,
    /// Longest time for TLS and the HTTP/2 preface; 10 s.
    pub handshake_timeout: Duration,
    /// Longest wait for the answer to a CONNECT; 15 s, more than a peer's own connect timeout.
    pub connect_timeout: Duration,
    /// Silence before a PING; 10 s.
    pub ping_after: Duration,
    /// Further silence before the tunnel is given up; 8 s, so that a peer that vanished is found within 20 s.
    pub pong_timeout: Duration,
    /// How long a peer's tunnel without streams is kept, at least; 10 min, more than the five that clients keep one.
    pub idle_timeout: Duration,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_bytes_max: 1 << 20,
            streams_max: 200,
            send_buffer: 512 << 10,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(15),
            ping_after: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(8),
            idle_timeout: Duration::from_secs(600),
        }
    }
}

/// Locally detected protocol errors before a peer is dismissed (T-01, T-02).
const RESET_STREAMS_MAX: usize = 1024;
/// Streams remembered after we reset them.
const RESET_MEMORY: usize = 50;
