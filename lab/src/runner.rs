//! What every process of a lab starts as: it ties itself to its parent's life, then becomes the program.
//!
//! With `--init` it stays as the first process of a container: it forwards signals, collects orphans and
//! passes on the exit code. It decides nothing and reads no configuration.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

/// The hidden subcommand that ends up here.
pub const COMMAND: &str = "lab-run";
/// Stay as the first process of a container.
pub const INIT_FLAG: &str = "--init";

/// Exit code when the program cannot be found, as shells use it.
const NOT_FOUND: i32 = 127;
/// Exit code when the program is there but cannot be run.
const NOT_RUNNABLE: i32 = 126;

/// What an init passes on to its program.
const FORWARDED: [i32; 8] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT];

/// Runs `[--init] -- PROGRAM ARGS…`; returns an exit code only if the program did not take over.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let mut args = args.into_iter().peekable();
    let init = args.next_if(|a| a == INIT_FLAG).is_some();
    let argv: Vec<OsString> = args.skip_while(|a| a == "--").collect();
    if let Err(e) = set_pdeathsig(Signal::SIGKILL) {
        complain(&format!("tying the process to the lab's life: {e}"));
        return NOT_RUNNABLE;
    }
    if init { be_init(&argv) } else { become_program(&argv) }
}

fn become_program(argv: &[OsString]) -> i32 {
    let Some((program, args)) = argv.split_first() else {
        complain("no program was named");
        return NOT_RUNNABLE;
    };
    let cause = Command::new(program).args(args).exec();
    cannot_start(program, &cause)
}

fn cannot_start(program: &OsStr, cause: &std::io::Error) -> i32 {
    complain(&format!("starting {}: {cause}", program.display()));
    if cause.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

fn be_init(argv: &[OsString]) -> i32 {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(e) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        complain(&format!("mounting the container's own /proc: {e}"));
        return NOT_RUNNABLE;
    }
    let mut signals = match Signals::new(FORWARDED) {
        Ok(signals) => signals,
        Err(e) => {
            complain(&format!("listening for signals: {e}"));
            return NOT_RUNNABLE;
        }
    };
    let Some((program, args)) = argv.split_first() else {
        return hold(&mut signals);
    };
    let child = match Command::new(program).args(args).spawn() {
        Ok(child) => Pid::from_raw(i32::try_from(child.id()).expect("the kernel's pids fit")),
        Err(cause) => return cannot_start(program, &cause),
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Ok(signal) = Signal::try_from(signal) {
                // The program may have ended by itself just now; then there is nobody to tell.
                let _ = kill(child, signal);
            }
        }
    });
    collect(child)
}

/// Holds the namespaces until told to end.
fn hold(signals: &mut Signals) -> i32 {
    for signal in signals.forever() {
        if [SIGTERM, SIGINT, SIGQUIT].contains(&signal) {
            break;
        }
    }
    0
}

/// Reaps whatever ends until the program itself does.
fn collect(child: Pid) -> i32 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                complain(&format!("waiting for the program: {e}"));
                return NOT_RUNNABLE;
            }
        }
    }
}

fn complain(what: &str) {
    // Standard error is the pod's log; if even that is gone there is nowhere to tell it.
    let _ = writeln!(std::io::stderr(), "ambit lab: {what}");
}
