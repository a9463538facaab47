//! `ambit lab logs`: what a part has written, and with `-f` what it writes next.
//!
//! A waypoint has a log for each of its pods, past ones among them; each piece of several begins with whose it is.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
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
    /// istiod, ztunnel/NODE, cni/NODE, pod/NAMESPACE/NAME or waypoint/NAMESPACE/NAME; with `--source kube` also
    /// istiod/N, apiserver, etcd or controller-manager
    target: Target,
}

/// A log that is being read.
struct Log {
    path: PathBuf,
    file: File,
}

pub(super) fn logs(lab: &LabName, args: &LogsArgs) -> Result<i32, LabError> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(LabError::NotUp(lab.clone()));
    }
    let mut logs: Vec<Log> = paths(&run, &args.target)?.into_iter().map(open).collect::<Result<_, _>>()?;
    let mut buffer = vec![0u8; 64 * 1024];
    let mut last = None;
    loop {
        let (mut grown, several) = (false, logs.len() > 1);
        for (number, log) in logs.iter_mut().enumerate() {
            let failed = LabError::file("reading", log.path.clone());
            let read = log.file.read(&mut buffer).map_err(failed)?;
            grown |= read > 0;
            let heading = several && read > 0 && last.replace(number) != Some(number);
            let heading = if heading { whose(log) } else { String::new() };
            if read > 0 && (write(heading.as_bytes()).is_err() || write(&buffer[..read]).is_err()) {
                return Ok(out::OK);
            }
        }
        if grown {
            continue;
        }
        // The log goes with its lab: then there is nothing left to follow.
        if !args.follow || logs.iter().all(|log| !log.path.exists()) {
            return Ok(out::OK);
        }
        std::thread::sleep(LOOK_AGAIN);
        // A waypoint gets new pods while it is followed.
        for path in paths(&run, &args.target).unwrap_or_default() {
            if logs.iter().all(|log| log.path != path) {
                logs.push(open(path)?);
            }
        }
    }
}

fn open(path: PathBuf) -> Result<Log, LabError> {
    let absent = "nothing has logged yet, or there is no such part:";
    let file = File::open(&path).map_err(LabError::file(absent, path.clone()))?;
    Ok(Log { path, file })
}

/// The log files of a part.
fn paths(run: &RunDir, target: &Target) -> Result<Vec<PathBuf>, LabError> {
    let Target::Waypoint { namespace, name } = target else { return Ok(vec![target.log(run)]) };
    let entries = fs::read_dir(run.logs()).map_err(LabError::file("reading folder", run.logs()))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut own: Vec<String> = names.filter(|file| is_replica_log(file, namespace, name)).collect();
    own.sort();
    if own.is_empty() {
        return Err(LabError::Failed(format!(
            "no pod of {target} has logged yet, or there is no such waypoint; see: ambit waypoint list -A"
        )));
    }
    Ok(own.into_iter().map(|file| run.logs().join(file)).collect())
}

/// Whether a log file is that of a numbered replica.
fn is_replica_log(file: &str, namespace: &str, name: &str) -> bool {
    let number = file.strip_prefix(&format!("pod-{namespace}-{name}-")).and_then(|f| f.strip_suffix(".log"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The line above a piece of one of several logs, as `tail` has it.
fn whose(log: &Log) -> String {
    let name = log.path.file_stem().unwrap_or_default().to_string_lossy();
    format!("==> {} <==\n", name.trim_start_matches("pod-"))
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waypoints_logs_are_those_of_its_replicas() {
        let rows = [
            ("pod-shop-waypoint-0.log", true),
            ("pod-shop-waypoint-12.log", true),
            ("pod-shop-waypoint-canary-0.log", false),
            ("pod-shop-waypoint-.log", false),
            ("pod-shop-waypoint.log", false),
            ("pod-other-waypoint-0.log", false),
        ];
        for (file, want) in rows {
            assert_eq!(is_replica_log(file, "shop", "waypoint"), want, "row {file}");
        }
    }
}
