//! What is kept on the node's disk for a start without control plane.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

/// Name of the key in the state directory where no other place is given.
const KEY_FILE: &str = "state.key";

/// The sealed state.
#[derive(Debug, Clone, Args)]
pub struct StateConfig {
    /// Directory of this node's sealed state, ours alone (0700), made if it is missing; empty: nothing is kept.
    #[arg(id = "state_dir", long = "state-dir", env = "AMBIT_STATE_DIR", default_value = "", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub dir: PathBuf,
    /// File of the key that seals it: 32 random bytes, ours alone (0600), made if it is missing; empty: in the directory.
    #[arg(id = "state_key_file", long = "state-key-file", env = "AMBIT_STATE_KEY_FILE", default_value = "", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub key: PathBuf,
    /// Whether the keys and certificates of this node's workloads are sealed too; without them a restart waits for the CA.
    #[arg(id = "state_keys", long = "state-keys", env = "AMBIT_STATE_KEYS", action = clap::ArgAction::Set, default_value_t = true)]
    pub keys: bool,
    /// How long ago the control plane may have been heard for its state to be used at a start.
    #[arg(id = "state_max_age", long = "state-max-age", env = "AMBIT_STATE_MAX_AGE", default_value = "24h", value_parser = super::duration)]
    pub max_age: Duration,
    /// How long the control plane may be away before a running ztunnel lets in only pairs that it has let in since it
    /// started; others are refused then (AMB6006). Unset: it serves what it knows until certificates end.
    #[arg(id = "state_max_stale", long = "state-max-stale", env = "AMBIT_STATE_MAX_STALE", value_parser = super::duration)]
    pub max_stale: Option<Duration>,
}

impl StateConfig {
    /// Where the key is.
    pub fn key_file(&self) -> PathBuf {
        if self.key.as_os_str().is_empty() { self.dir.join(KEY_FILE) } else { self.key.clone() }
    }
}
