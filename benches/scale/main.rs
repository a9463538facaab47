//! `cargo bench -p ambit-benches --bench scale -- scale-folder`: the control plane of a large mesh.
//!
//! The program `istiod-lite` over 50,000 pods and 5,000 services, in a folder or on a real API server, and 1,000
//! simulated proxies with real discovery streams: how long they take to have their part, what memory that needs, how
//! one change travels and to whom, and whether memory stays flat while pods change. Nothing is judged by a time; the
//! exit code is 1 where a change misses a proxy that it concerns, or reaches one that it does not.

mod facts;
mod folder;
mod kube;
mod layout;
mod measure;
mod objects;
mod plane;
mod process;
mod ztunnels;

use std::process::ExitCode;

use ambit_benches::{Run, Scale};
use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use measure::Filled;

/// Open files for each proxy: here and in the control plane, which inherits the limit, one connection and some room.
const FILES_EACH: u64 = 2;
/// Open files besides.
const FILES: u64 = 512;

fn main() -> ExitCode {
    ambit_benches::scale(measure)
}

fn measure(asked: &Scale, say: fn(&str)) -> anyhow::Result<Vec<Run>> {
    allow_files(u64::try_from(asked.clients)? * FILES_EACH + FILES)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On this thread, with which the programs that are started would end.
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            runs = all(asked, say) => runs,
            _ = terminated.recv() => bail!("interrupted; everything was put back"),
            _ = interrupted.recv() => bail!("interrupted; everything was put back"),
        }
    })
}

async fn all(asked: &Scale, say: fn(&str)) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    for source in &asked.sources {
        // A short path: sockets are in there, too.
        let home = tempfile::Builder::new().prefix("ambit-scale-").tempdir().context("making a folder")?;
        let mut filled = Filled::make(*source, asked, home.path(), say).await?;
        for mode in &asked.modes {
            runs.push(filled.run(*mode, asked, home.path(), say).await?);
        }
    }
    Ok(runs)
}

/// Raises the number of files that we, and what we start, may open.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted {
        bail!("{wanted} open files are needed and {hard} allowed; raise the limit with: ulimit -Hn {wanted}");
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}
