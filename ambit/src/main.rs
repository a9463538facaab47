//! The command line. Two hidden words come first: they are how the lab starts its own processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    let code = match args.peek().and_then(|word| word.to_str()) {
        Some(ambit_lab::runner::COMMAND) => ambit_lab::runner::main(args.skip(1)),
        Some(ambit_lab::DAEMON_COMMAND) => {
            ambit_lab::daemon::main(args.skip(1).map(|word| word.to_string_lossy().into_owned()))
        }
        _ => ambit::cmd::run(),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
