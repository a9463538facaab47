//! A collector of spans by OTLP, gRPC and protobuf over HTTP, that keeps what it is sent.
//!
//! On its HTTP port `/spans` tells all of them, `/spans?trace=ID` those of a trace; `/spans/reset` forgets them.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tonic::{Request, Response, Status};

use super::listen::{self, as_json, as_text, listen};
use super::proto::otlp::any_value::Value as Of;
use super::proto::otlp::span::SpanKind;
use super::proto::otlp::status::StatusCode as Outcome;
use super::proto::otlp::trace_service_server::{TraceService, TraceServiceServer};
use super::proto::otlp::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Span,
};
use crate::serve::{Body, whole};

/// Most spans that are kept; those beyond are rejected, and said to be.
const SPANS_MAX: usize = 100_000;
/// Longest request that is read, in bytes.
const REQUEST_MAX: usize = 8 << 20;
/// What protobuf is called in HTTP.
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// A collector.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port of OTLP's `TraceService`.
    #[arg(long)]
    grpc_port: u16,
    /// Port of `/v1/traces`, and of `/spans`.
    #[arg(long)]
    http_port: u16,
}

/// Serves until it is ended from outside.
///
/// # Errors
/// If a port cannot be had, or accepting fails for good.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let kept = Kept::default();
    let server = TraceServiceServer::new(kept.clone());
    let grpc =
        listen("collector, gRPC,", options.grpc_port, move |request| listen::grpc(server.clone(), request));
    let http = listen("collector, HTTP,", options.http_port, move |request| {
        let kept = kept.clone();
        async move { Ok(kept.answer(request).await) }
    });
    try_join(grpc, http).await.map(|((), ())| ())
}

/// Spans as they are told.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Value>>>);

impl Kept {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what there is place for.
    fn take(&self, request: ExportTraceServiceRequest, protocol: &str) -> ExportTraceServiceResponse {
        let mut rejected = 0;
        for resource in request.resource_spans {
            let program = attributes(resource.resource.unwrap_or_default().attributes);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let told = told(span, &program["service.name"], protocol);
                self.with(|kept| if kept.len() < SPANS_MAX { kept.push(told) } else { rejected += 1 });
            }
        }
        let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: String::new() };
        ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) }
    }

    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/traces") => self.export(request).await,
            (&Method::GET, "/spans") => {
                let query = request.uri().query().unwrap_or_default();
                let trace = query.strip_prefix("trace=");
                let is_asked = |span: &&Value| trace.is_none_or(|trace| span["trace"] == trace);
                as_json(&self.with(|kept| kept.iter().filter(is_asked).cloned().collect::<Value>()))
            }
            (_, "/spans/reset") => {
                self.with(Vec::clear);
                as_json(&json!([]))
            }
            _ => as_text(StatusCode::NOT_FOUND, "there are only /v1/traces and /spans\n"),
        }
    }

    /// OTLP over HTTP.
    async fn export(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        if request.headers().get(CONTENT_TYPE) != Some(&PROTOBUF) {
            return as_text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only application/x-protobuf\n");
        }
        let body = match Limited::new(request.into_body(), REQUEST_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return as_text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) => {
                let mut answer = http::Response::new(whole(self.take(request, "http").encode_to_vec()));
                answer.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
                answer
            }
            Err(error) => as_text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(self.take(request.into_inner(), "grpc")))
    }
}

fn told(span: Span, program: &Value, protocol: &str) -> Value {
    let kind = match span.kind() {
        SpanKind::Unspecified => "UNSPECIFIED",
        SpanKind::Internal => "INTERNAL",
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Producer => "PRODUCER",
        SpanKind::Consumer => "CONSUMER",
    };
    let is_error = span.status.as_ref().is_some_and(|status| status.code() == Outcome::Error);
    json!({
        "trace": hexadecimal(&span.trace_id),
        "span": hexadecimal(&span.span_id),
        "parent": hexadecimal(&span.parent_span_id),
        "name": span.name,
        "kind": kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "is_error": is_error,
        "program": program,
        "protocol": protocol,
        "attributes": attributes(span.attributes),
    })
}

fn attributes(all: Vec<KeyValue>) -> Value {
    let value = |value: Option<Of>| match value {
        Some(Of::StringValue(text)) => Value::from(text),
        Some(Of::BoolValue(flag)) => Value::from(flag),
        Some(Of::IntValue(number)) => Value::from(number),
        Some(Of::DoubleValue(number)) => Value::from(number),
        None => Value::Null,
    };
    let pairs = all.into_iter().map(|one| (one.key, value(one.value.and_then(|any| any.value))));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
