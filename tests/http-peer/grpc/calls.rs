//! The client's side: one call of each kind, checked byte by byte, told as JSON.

use std::collections::BTreeSet;

use ambit_runtime::clock;
use clap::ValueEnum;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tonic::{Request, Status};

use super::direct::Direct;
use super::proto::echo_client::EchoClient;
use super::proto::{Ask, Failure, Pause, Piece};
use crate::pattern::{self, Sum};

/// Which call.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Unary,
    Client,
    Server,
    Bidi,
    Fail,
    Sleep,
}

/// One call.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    kind: Kind,
    /// As `http://HOST:PORT`.
    #[arg(long)]
    url: String,
    /// Messages of a stream.
    #[arg(long, default_value_t = 10)]
    messages: u64,
    /// Bytes of each message.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// gRPC status that `fail` asks for.
    #[arg(long, default_value_t = 9)]
    code: i32,
    /// Message that `fail` asks for.
    #[arg(long, default_value = "as asked")]
    message: String,
    /// How long `sleep` asks for, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pause_ms: u64,
    /// The call's deadline, such as `500ms`.
    #[arg(long)]
    deadline: Option<humantime::Duration>,
}

/// What came back.
struct Got {
    messages: u64,
    bytes: u64,
    sha256: String,
    peers: BTreeSet<String>,
    /// Of `sleep`: the deadline that the server saw, in milliseconds.
    deadline: Option<u64>,
}

/// Makes the call; what came of it, also if it failed.
pub(crate) async fn run(options: &Options) -> Value {
    let begun = clock::monotonic();
    let outcome = call(options).await;
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(got) => {
            let want = expected(options);
            json!({
                "ok": true, "code": 0, "took_ms": took, "messages": got.messages, "bytes": got.bytes,
                "sha256": got.sha256, "sha256_ok": want.is_none_or(|want| want == got.sha256),
                "peers": got.peers, "deadline_ms": got.deadline,
            })
        }
        Err(status) => json!({
            "ok": false, "code": i32::from(status.code()), "message": status.message(), "took_ms": took,
            "reason": status.metadata().get("x-ambit-reason").and_then(|code| code.to_str().ok()),
        }),
    }
}

async fn call(options: &Options) -> Result<Got, Status> {
    let mut client = connect(options).await?;
    match options.kind {
        Kind::Unary => {
            let piece = Piece { data: pattern::chunk(0, options.bytes).to_vec(), peer: String::new() };
            let answer = client.unary(limited(piece, options)).await?.into_inner();
            Ok(of_pieces([answer]))
        }
        Kind::Client => {
            let sum = client.client_stream(limited(pieces(options), options)).await?.into_inner();
            let peers = BTreeSet::from([sum.peer]);
            Ok(Got { messages: sum.messages, bytes: sum.bytes, sha256: sum.sha256, peers, deadline: None })
        }
        Kind::Server => {
            let ask = Ask { messages: options.messages, bytes_each: options.bytes as u64 };
            collect(client.server_stream(limited(ask, options)).await?.into_inner()).await
        }
        Kind::Bidi => {
            collect(client.bidi_stream(limited(pieces(options), options)).await?.into_inner()).await
        }
        Kind::Fail => {
            let failure = Failure { code: options.code, message: options.message.clone() };
            Ok(of_pieces([client.fail(limited(failure, options)).await?.into_inner()]))
        }
        Kind::Sleep => {
            let pause = Pause { milliseconds: options.pause_ms };
            let answer = client.sleep(limited(pause, options)).await?.into_inner();
            let deadline = String::from_utf8_lossy(&answer.data).parse().ok();
            Ok(Got { deadline, ..of_pieces([answer]) })
        }
    }
}

async fn connect(options: &Options) -> Result<EchoClient<Direct>, Status> {
    let direct = Direct::connect(&options.url).await;
    let direct = direct.map_err(|error| Status::unavailable(format!("{error:#}")))?;
    let origin = options.url.parse().map_err(|_| Status::invalid_argument("the URL is none"))?;
    Ok(EchoClient::with_origin(direct, origin))
}

fn limited<T>(message: T, options: &Options) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = options.deadline {
        request.set_timeout(*deadline);
    }
    request
}

fn pieces(options: &Options) -> impl stream::Stream<Item = Piece> + Send + 'static {
    let bytes = options.bytes;
    let piece = move |index| Piece { data: pattern::chunk(index, bytes).to_vec(), peer: String::new() };
    stream::iter(0..options.messages).map(piece)
}

async fn collect(mut pieces: tonic::Streaming<Piece>) -> Result<Got, Status> {
    let (mut sum, mut messages, mut peers) = (Sum::new(), 0, BTreeSet::new());
    while let Some(piece) = pieces.message().await? {
        sum.add(&piece.data);
        messages += 1;
        peers.insert(piece.peer);
    }
    Ok(Got { messages, bytes: sum.bytes(), sha256: sum.finish(), peers, deadline: None })
}

fn of_pieces<const N: usize>(pieces: [Piece; N]) -> Got {
    let mut sum = Sum::new();
    pieces.iter().for_each(|piece| sum.add(&piece.data));
    let peers = pieces.into_iter().map(|piece| piece.peer).collect();
    Got { messages: N as u64, bytes: sum.bytes(), sha256: sum.finish(), peers, deadline: None }
}

/// The sum of what should come back; none where it is not a matter of bytes.
fn expected(options: &Options) -> Option<String> {
    let messages = match options.kind {
        Kind::Unary => 1,
        Kind::Client | Kind::Server | Kind::Bidi => options.messages,
        Kind::Fail | Kind::Sleep => return None,
    };
    let mut sum = Sum::new();
    (0..messages).for_each(|index| sum.add(&pattern::chunk(index, options.bytes)));
    Some(sum.finish())
}
