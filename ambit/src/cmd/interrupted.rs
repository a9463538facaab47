//! What an interruption does. A command that is making a lab removes the lab and ends; one that shows what happens until
//! somebody has seen enough ends at once.
//!
//! The removal works from what the kernel shows, so it does not matter how far the command had come.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_lab::{LabError, LabName, cleanup, rootless};
use anyhow::Context as _;
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

use crate::out;

/// From now on SIGINT ends the process with exit code 130, also while it waits for a reader of its output.
///
/// What it showed was written line by line, so nothing is lost by that.
///
/// # Errors
/// If the system refuses.
pub(crate) fn ends_the_command() -> anyhow::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    register_conditional_shutdown(SIGINT, out::INTERRUPTED, always).context("listening for SIGINT")?;
    Ok(())
}

/// Removes a lab that is being made or toured when somebody interrupts that.
pub(crate) struct Interrupted {
    signals: signal_hook::iterator::Handle,
    /// Held while something is made; true once nothing may be made any more.
    stopped: Arc<Mutex<bool>>,
}

impl Interrupted {
    /// Begins to listen for SIGINT and SIGTERM.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn watch(lab: &LabName) -> Result<Self, LabError> {
        let fail = |cause| LabError::Start { program: "signal handling".to_owned(), cause };
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(fail)?;
        let (handle, lab) = (signals.handle(), lab.clone());
        let stopped = Arc::new(Mutex::new(false));
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                *stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
                out::say(&format!("interrupted; removing lab {lab}"));
                if let Err(error) = cleanup::remove(&lab) {
                    out::say(&format!("Error: {}", error.full()));
                }
                rootless::forget(&lab);
                std::process::exit(out::INTERRUPTED);
            }
        });
        Ok(Self { signals: handle, stopped })
    }

    /// Makes something that an interruption has to find whole or not at all.
    ///
    /// # Errors
    /// What `work` says; exit code 130 once there was an interruption.
    pub(crate) fn make<T>(&self, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return Err(LabError::Refused { exit_code: out::INTERRUPTED, message: "interrupted".to_owned() });
        }
        work()
    }

    /// Whether there was an interruption.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the end of the process to the thread that is removing the lab.
    pub(crate) fn wait_for_exit(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    /// Gives the signals back: what was made stays.
    pub(crate) fn done(&self) {
        self.signals.close();
    }
}
