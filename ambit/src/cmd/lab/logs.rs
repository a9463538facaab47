//! `ambit lab logs`: what a part has written, and with `-f` what it writes next.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use ambit_lab::programs::Target;
use ambit_lab::{LabError, LabName, RunDir};

use crate::out;

/// Pause between two looks at a log that has not grown.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Which log, and how.
#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Go on as the log grows
    #[arg(short, long)]
    follow: bool,
    /// istiod, ztunnel/NODE, cni/NODE, pod/NAMESPACE/NAME or waypoint/NAMESPACE/NAME
    target: Target,
}

pub(super) fn logs(lab: &LabName, args: &LogsArgs) -> Result<i32, LabError> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(LabError::NotUp(lab.clone()));
    }
    let path = args.target.log(&run);
    let mut log = File::open(&path)
        .map_err(LabError::file("nothing has logged yet, or there is no such part:", path.clone()))?;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let read = log.read(&mut buffer).map_err(LabError::file("reading", path.clone()))?;
        if read > 0 {
            if write(&buffer[..read]).is_err() {
                return Ok(out::OK);
            }
        } else if !args.follow || !path.exists() {
            // The log goes with its lab: then there is nothing left to follow.
            return Ok(out::OK);
        } else {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
