//! The server's side: echoes, sums, failures and delays.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::proto::{Ask, Failure, Pause, Piece, Sum as Summed, echo_server};
use crate::pattern::{self, Sum};

/// Longest piece that is sent on demand, in bytes.
const PIECE_MAX: u64 = 1 << 20;

/// The service of one server.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    name: String,
}

impl Echo {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    type ServerStreamStream = BoxStream<Piece>;
    type BidiStreamStream = BoxStream<Piece>;

    async fn unary(&self, request: Request<Piece>) -> Result<Response<Piece>, Status> {
        Ok(Response::new(Piece { data: request.into_inner().data, peer: self.name.clone() }))
    }

    async fn client_stream(&self, request: Request<Streaming<Piece>>) -> Result<Response<Summed>, Status> {
        let (mut pieces, mut sum, mut messages) = (request.into_inner(), Sum::new(), 0);
        while let Some(piece) = pieces.message().await? {
            sum.add(&piece.data);
            messages += 1;
        }
        let (bytes, peer) = (sum.bytes(), self.name.clone());
        Ok(Response::new(Summed { messages, bytes, sha256: sum.finish(), peer }))
    }

    async fn server_stream(
        &self,
        request: Request<Ask>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let (ask, peer) = (request.into_inner(), self.name.clone());
        let Some(length) = usize::try_from(ask.bytes_each).ok().filter(|_| ask.bytes_each <= PIECE_MAX)
        else {
            return Err(Status::out_of_range(format!("pieces have at most {PIECE_MAX} bytes")));
        };
        let pieces = stream::iter(0..ask.messages)
            .map(move |index| Ok(Piece { data: pattern::chunk(index, length).to_vec(), peer: peer.clone() }));
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn bidi_stream(
        &self,
        request: Request<Streaming<Piece>>,
    ) -> Result<Response<Self::BidiStreamStream>, Status> {
        let peer = self.name.clone();
        let echoed = request.into_inner().map(move |piece| {
            let piece = piece?;
            Ok(Piece { data: piece.data, peer: peer.clone() })
        });
        Ok(Response::new(Box::pin(echoed)))
    }

    async fn fail(&self, request: Request<Failure>) -> Result<Response<Piece>, Status> {
        let failure = request.into_inner();
        Err(Status::new(Code::from_i32(failure.code), failure.message))
    }

    async fn sleep(&self, request: Request<Pause>) -> Result<Response<Piece>, Status> {
        let deadline = request.metadata().get("grpc-timeout").and_then(|text| text.to_str().ok());
        let deadline = deadline.and_then(deadline_of);
        let pause = Duration::from_millis(request.into_inner().milliseconds);
        if let Some(deadline) = deadline
            && deadline < pause
        {
            tokio::time::sleep(deadline).await;
            return Err(Status::deadline_exceeded(format!("the caller gave {deadline:?}")));
        }
        tokio::time::sleep(pause).await;
        let told = deadline.map(|deadline| deadline.as_millis().to_string()).unwrap_or_default();
        Ok(Response::new(Piece { data: told.into_bytes(), peer: self.name.clone() }))
    }
}

/// What `grpc-timeout` says: up to eight digits and a unit.
fn deadline_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}
