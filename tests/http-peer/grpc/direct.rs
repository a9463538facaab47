//! A channel of one connection that keeps no time of its own: a deadline that passes is told by whoever is behind it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tonic::codegen::Service;

use crate::client::{Sender, Target, connect};
use crate::serve::Body;

/// One HTTP/2 connection.
pub(super) struct Direct(SendRequest<Body>);

impl Direct {
    /// Connects to `http://HOST:PORT`.
    pub(super) async fn connect(url: &str) -> anyhow::Result<Self> {
        match connect(&Target::parse(url)?, true).await? {
            Sender::Two(sender) => Ok(Self(sender)),
            Sender::One(_) => anyhow::bail!("gRPC needs HTTP/2"),
        }
    }
}

impl Service<Request<tonic::body::Body>> for Direct {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request.map(|body| body.map_err(Into::into).boxed_unsync())))
    }
}
