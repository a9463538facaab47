//! The command line. Two hidden words come first: they are how the lab starts its own processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let code = match args.peek().map(String::as_str) {
        Some(ambit_lab::runner::COMMAND) => ambit_lab::runner::main(args.skip(1)),
        Some(ambit_lab::DAEMON_COMMAND) => ambit_lab::daemon::main(args.skip(1)),
        _ => ambit::cmd::run(),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
