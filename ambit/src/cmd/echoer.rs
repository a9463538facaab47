//! `ambit echoer …`: the lab's traffic oracle as a server and a client. Hidden: tests and benchmarks use it.
//!
//! Events go to standard error, one JSON object a line; the summary goes to standard output, one JSON object.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ambit_lab::echoer::plan::Wish;
use ambit_lab::echoer::{self, Event, Events, Plan, Server};
use ambit_runtime::{clock, tasks};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::out;

/// A TCP server that states who it is, and a client that checks every byte.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Greet with a name, send every frame back; SIGTERM ends it with a summary
    Server(ServerArgs),
    /// Open connections, check everything that comes back, print one summary
    Client(ClientArgs),
}

#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// Address to listen on
    #[arg(long, default_value = "[::]:7000")]
    listen: SocketAddr,
    /// Who to say we are; a pod's name is its HOSTNAME
    #[arg(long, env = "HOSTNAME")]
    name: String,
    /// Greet before the client has said anything
    #[arg(long)]
    server_first: bool,
    /// Go on that long after SIGTERM
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    linger: Duration,
}

#[derive(Debug, clap::Args)]
struct ClientArgs {
    /// Where to, as HOST:PORT
    target: String,
    /// How many connections; default 1, or as many as --duration allows
    #[arg(long)]
    connections: Option<u64>,
    /// Open so many a second, whatever happens to those before
    #[arg(long)]
    rate: Option<f64>,
    /// Open so many side by side, each after the one before has ended; default 1
    #[arg(long)]
    concurrency: Option<u64>,
    /// Begin no connection after that time; ends held ones
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Keep every connection open until --duration is over
    #[arg(long)]
    hold: bool,
    /// Say something on each held connection that often; default never
    #[arg(long, value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
    /// When each held connection moves --burst-bytes, counted from the start
    #[arg(long, value_parser = humantime::parse_duration)]
    burst_after: Option<Duration>,
    /// How much each held connection then moves each way
    #[arg(long, value_parser = bytes, default_value = "0")]
    burst_bytes: u64,
    /// Payload of each connection each way, such as 64KiB
    #[arg(long, value_parser = bytes, default_value = "1KiB")]
    payload_bytes: u64,
    /// Payload of each frame
    #[arg(long, value_parser = bytes, default_value = "16KiB")]
    frame_bytes: u64,
    /// The server greets before we say anything
    #[arg(long)]
    server_first: bool,
    /// Close our sending side right after the last frame
    #[arg(long)]
    half_close: bool,
    /// Name of a server that may answer; repeat it for more, leave it out for any
    #[arg(long)]
    expect_server: Vec<String>,
    /// How long opening a connection may take
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    connect_timeout: Duration,
    /// How long nothing may come although something is due
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    stall_timeout: Duration,
    /// Tell every failed connection on standard error
    #[arg(long)]
    events: bool,
}

/// Runs the command; 0 if nothing went wrong, 1 if a connection failed.
///
/// # Errors
/// If it could not begin.
pub fn run(args: Args) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let descriptors = echoer::raise_descriptor_limit()?;
    runtime.block_on(async {
        let stop = stop_on_signal()?;
        match args.command {
            Command::Server(args) => serve(args, stop).await,
            Command::Client(args) => call(args, descriptors, stop).await,
        }
    })
}

async fn serve(args: ServerArgs, stop: watch::Receiver<bool>) -> anyhow::Result<i32> {
    if args.name.is_empty() {
        out::say("ambit: --name: give the server a name");
        return Ok(out::USAGE);
    }
    let listener = echoer::server::listen(args.listen)
        .map_err(|e| anyhow::anyhow!("listening on {}: {e}", args.listen))?;
    let server = Server { name: args.name, speaks_first: args.server_first, linger: args.linger };
    let served = echoer::serve(listener, server, events(true), stop).await;
    out::data(&serde_json::to_string(&served)?);
    Ok(out::OK)
}

async fn call(args: ClientArgs, descriptors: u64, stop: watch::Receiver<bool>) -> anyhow::Result<i32> {
    let tells = args.events;
    let plan = match Plan::of(wish(args), descriptors) {
        Ok(plan) => plan,
        Err(error) => {
            out::say(&format!("ambit: {error}"));
            return Ok(out::USAGE);
        }
    };
    let summary = echoer::run(plan, client_id(), events(tells), stop).await;
    out::data(&serde_json::to_string(&summary)?);
    Ok(if summary.ok { out::OK } else { out::FAILED })
}

fn wish(args: ClientArgs) -> Wish {
    Wish {
        target: args.target,
        connections: args.connections,
        rate: args.rate,
        duration: args.duration,
        hold: args.hold,
        concurrency: args.concurrency,
        payload_bytes: args.payload_bytes,
        frame_bytes: usize::try_from(args.frame_bytes).unwrap_or(usize::MAX),
        interval: args.interval,
        burst_after: args.burst_after,
        burst_bytes: args.burst_bytes,
        server_first: args.server_first,
        half_close: args.half_close,
        expect_server: args.expect_server,
        connect_timeout: args.connect_timeout,
        stall_timeout: args.stall_timeout,
    }
}

/// Two clients never share it: no two processes of a machine start with one pid at one instant.
fn client_id() -> u64 {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    nanos.rotate_left(22) ^ u64::from(std::process::id())
}

/// Writes events as lines; failures only if asked for.
fn events(failures: bool) -> Events {
    Arc::new(move |event: Event| {
        let told = match &event {
            Event::Failed { .. } => failures,
            Event::Listening { .. } | Event::Holding { .. } | Event::Burst { .. } => true,
        };
        if told && let Ok(line) = serde_json::to_string(&event) {
            out::say(&line);
        }
    })
}

/// Holds true after the first SIGTERM or SIGINT.
fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tasks::spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        stop.closed().await;
    });
    Ok(stopped)
}

/// Reads a number of bytes: 512, 64KiB, 1MiB, 1GiB.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("unit {other:?} is not one of B, KiB, MiB, GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} begins with no number"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too much"))
}
