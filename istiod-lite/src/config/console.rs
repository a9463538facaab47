//! Flags of the HTTP API and console.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Source;

/// The HTTP API and console over TCP; on the admin socket the API is always there.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Console {
    /// Where the web console and its API are served, by plain HTTP on loopback and by TLS elsewhere; nowhere unless given.
    /// In a cluster `[::]:15019`, where `ambit flows` and others ask through the API server.
    #[arg(long, env = "AMBIT_CONSOLE_LISTEN", value_name = "ADDRESS:PORT")]
    pub console_listen: Option<SocketAddr>,

    /// File with the token that callers must show, 16 bytes or more, as a bearer token or in `x-ambit-console-token`; read
    /// anew for each request. While it is not there nobody is answered. Needed with
    /// `--source kube`, and wherever others than this machine can call.
    #[arg(long, env = "AMBIT_CONSOLE_TOKEN_FILE", value_name = "FILE")]
    pub console_token_file: Option<PathBuf>,
}

impl Console {
    /// Data is shown without a token only to callers on the machine of a lab.
    pub(super) fn complete(&self, source: Source) -> Result<(), &'static str> {
        let Some(listen) = self.console_listen else { return Ok(()) };
        let is_lab = match source {
            Source::Folder => listen.ip().is_loopback(),
            Source::Kube => false,
        };
        match is_lab || self.console_token_file.is_some() {
            true => Ok(()),
            false => Err("--console-listen needs --console-token-file <FILE> here"),
        }
    }
}
