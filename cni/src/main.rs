//! The program `ambit-cni`: reads its configuration and runs the agent.

use std::io::Write as _;
use std::process::ExitCode;

use ambit_cni::app;
use ambit_cni::config::Config;

fn main() -> ExitCode {
    let (config, origins) = match Config::read(std::env::args_os()) {
        Ok(read) => read,
        Err(error) => error.exit(),
    };
    if config.print_config {
        // A reader that has gone away does not want the rest.
        let _ = std::io::stdout().write_all(origins.as_bytes());
        return ExitCode::SUCCESS;
    }
    let ended = app::run(&config);
    ambit_runtime::logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ambit-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}
