//! A peer for tests of what is between: an upstream that behaves or misbehaves as the path asks, and clients that count
//! exactly.
//!
//! It judges nothing: every client prints one line of JSON that says what it saw, an error included, and exits with 0.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program that reports")]

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::Value;

mod called;
mod client;
mod grpc;
mod pattern;
mod serve;
mod websocket;

/// Threads of the runtime: enough to keep a small machine's proxies busy, few enough to leave it to them.
const THREADS: usize = 2;

/// An HTTP and gRPC peer for tests.
#[derive(Debug, Parser)]
#[command(name = "http-peer")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves HTTP/1.1, HTTP/2 and gRPC on one port.
    Serve(serve::Options),
    /// One request.
    Get(client::get::Options),
    /// Rows of a table, one after the other.
    Rows(client::rows::Options),
    /// Rows of a table, byte for byte.
    Bytes(client::bytes::Options),
    /// Only costs, for a while.
    Attack(client::attack::Options),
    /// Many requests.
    Load(client::load::Options),
    /// Sends a body that the other end adds up.
    Upload(client::transfer::Options),
    /// Fetches a body and adds it up.
    Download(client::transfer::Options),
    /// One gRPC call.
    Grpc(grpc::calls::Options),
    /// One WebSocket conversation.
    Ws(client::ws::Options),
    /// Serves as external authorizer, in gRPC and in HTTP.
    Authz(called::authz::Options),
    /// Serves as rate limit service.
    Rls(called::rls::Options),
    /// Serves answers that no server should give.
    Wild(called::wild::Options),
    /// Serves as collector of spans.
    Collector(called::collector::Options),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(THREADS).enable_all().build().context("building the runtime")?;
    if let Some(told) = runtime.block_on(run(arguments.command))? {
        println!("{told}");
    }
    Ok(())
}

/// Runs a command; what there is to tell at its end.
async fn run(command: Command) -> anyhow::Result<Option<Value>> {
    match command {
        Command::Serve(options) => serve::run(options).await.map(|()| None),
        Command::Get(options) => client::get::run(&options).await.map(Some),
        Command::Rows(options) => client::rows::run(&options).await.map(Some),
        Command::Bytes(options) => client::bytes::run(&options).await.map(Some),
        Command::Attack(options) => client::attack::run(&options).await.map(Some),
        Command::Load(options) => client::load::run(options).await.map(Some),
        Command::Upload(options) => client::transfer::upload(&options).await.map(Some),
        Command::Download(options) => client::transfer::download(&options).await.map(Some),
        Command::Grpc(options) => Ok(Some(grpc::calls::run(&options).await)),
        Command::Ws(options) => client::ws::run(&options).await.map(Some),
        Command::Authz(options) => called::authz::run(&options).await.map(|()| None),
        Command::Rls(options) => called::rls::run(options).await.map(|()| None),
        Command::Wild(options) => called::wild::run(&options).await.map(|()| None),
        Command::Collector(options) => called::collector::run(&options).await.map(|()| None),
    }
}
