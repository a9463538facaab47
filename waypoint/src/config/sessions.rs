//! How marks of sessions are proven to be ours.

use std::path::PathBuf;

use clap::Args;

/// Settings of session persistence.
#[derive(Debug, Clone, Args)]
pub struct SessionsConfig {
    /// File with the key of session persistence, 32 to 4096 bytes, the same for all replicas. Unset, or no such file:
    /// a key by chance, by which a client stays with its endpoint only as long as it talks to the same replica.
    #[arg(long, env = "AMBIT_SESSION_KEY_FILE")]
    pub session_key_file: Option<PathBuf>,
}
