//! The program `istiod-lite`: reads its configuration and runs the control plane.

use std::io::Write as _;
use std::process::ExitCode;

use istiod_lite::app;
use istiod_lite::config::Config;

/// Returns what reading the cluster took to the system; the system's own allocator keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
            let _ = writeln!(std::io::stderr(), "istiod-lite: {error:#}");
            ExitCode::FAILURE
        }
    }
}
