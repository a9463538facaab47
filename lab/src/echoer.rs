//! The traffic oracle: a TCP server that states who it is, and a client that notices whatever happens to bytes.
//!
//! Every frame carries client, connection, sequence number, time and a running BLAKE3 over everything before it,
//! both ways. Loss, duplication, reordering, corruption, truncation, delivery to the wrong server, stalls, resets
//! and refusals are each detected and counted apart. What a test makes of the counts is not decided here.

pub mod client;
mod connection;
pub mod frame;
pub mod plan;
pub mod server;
pub mod summary;

pub use client::run;
pub use plan::{Load, Plan, PlanError};
pub use server::{Server, serve};
pub use summary::{Failure, Summary};

/// Something worth telling while a run goes on; for whoever waits for it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The server accepts connections.
    Listening {
        /// Where.
        address: std::net::SocketAddr,
        /// As whom.
        server: String,
    },
    /// Every connection that is to be held has been opened or has failed.
    Holding {
        /// How many are open.
        open: u64,
        /// Milliseconds since the start of the run.
        at_ms: u64,
    },
    /// Every held connection has moved its burst.
    Burst {
        /// How many are open.
        open: u64,
        /// Milliseconds since the start of the run.
        at_ms: u64,
    },
    /// A connection failed.
    Failed {
        /// Its number.
        connection: u64,
        /// The kind of failure.
        failure: Failure,
        /// What happened, for a person.
        error: String,
        /// Milliseconds since the start of the run.
        at_ms: u64,
    },
}

/// Takes the events of a run.
pub type Events = std::sync::Arc<dyn Fn(Event) + Send + Sync>;

/// Raises this process's limit of open descriptors as far as it may, and returns it.
///
/// # Errors
/// The system's answer.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
