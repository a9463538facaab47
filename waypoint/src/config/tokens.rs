//! How keys for tokens are fetched.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use ipnet::{AddrParseError, IpNet};

use super::duration;
use crate::keys::{Guard, Settings};

/// Settings of the keys.
#[derive(Debug, Clone, Args)]
pub struct Tokens {
    /// Ranges of addresses from which no keys are fetched, separated by commas; loopback, link-local and the
    /// metadata services of clouds are refused anyway.
    #[arg(long, env = "AMBIT_BLOCKED_CIDRS_IN_JWKS_URIS", default_value = "")]
    pub blocked_cidrs_in_jwks_uris: Ranges,
    /// Roots for keys that are fetched by https, a file of PEM. Unset: those of the operating system.
    #[arg(long, env = "AMBIT_JWKS_ROOT_CA")]
    pub jwks_root_ca: Option<PathBuf>,
    /// Pause between fetches of keys.
    #[arg(long, env = "AMBIT_JWKS_REFRESH", default_value = "20m", value_parser = duration)]
    pub jwks_refresh: Duration,
}

/// Ranges of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges(pub Vec<IpNet>);

impl FromStr for Ranges {
    type Err = AddrParseError;

    /// Reads ranges separated by commas; an empty text is none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
        ranges.map(IpNet::from_str).collect::<Result<_, _>>().map(Self)
    }
}

impl Tokens {
    /// How keys are fetched and kept.
    pub fn settings(&self) -> Settings {
        let defaults = Settings::default();
        Settings {
            guard: Guard { blocked: self.blocked_cidrs_in_jwks_uris.0.clone(), ..defaults.guard },
            roots: self.jwks_root_ca.clone(),
            // Shorter would fetch in a loop.
            refresh: self.jwks_refresh.max(defaults.unknown_pause),
            ..Settings::default()
        }
    }
}
