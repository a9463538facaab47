//! Starts a waypoint: reads the configuration once, builds the runtime, runs until it is told to end.

use std::io::Write as _;
use std::process::ExitCode;

use ambit_runtime::logging::{self, Format};
use ambit_runtime::metrics::{IDLE, Registry};
use ambit_runtime::workers;
use waypoint::config::{self, Config};

/// Returns memory of a burst to the system; the system's own allocator keeps it.
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
    let ended = run(config);
    logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(mut config: Config) -> anyhow::Result<()> {
    config.traces = config::traces()?;
    if let Some(offset) = config.test_clock_offset {
        ambit_runtime::clock::set_test_offset(offset);
    }
    raise_descriptor_limit();
    let format: Format = config.surface.log_format.parse()?;
    let log = logging::start(&config.surface.log, format)?;
    let metrics = Registry::install(IDLE)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads(workers::processors()))
        .thread_name("waypoint")
        .enable_all()
        .build()?;
    runtime.block_on(waypoint::app::run(config, log, metrics))
}

/// Every client and endpoint needs a descriptor; the soft limit is a historical default.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without the permission the soft limit stays, and exhaustion is told by the log.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[expect(clippy::print_stderr, reason = "the log may not be running yet; this is the program's last word")]
fn fail(error: &anyhow::Error) {
    eprintln!("waypoint: {error:#}");
}
