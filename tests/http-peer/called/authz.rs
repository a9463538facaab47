//! An external authorizer in both protocols that a waypoint speaks. Its answer is told by the header `x-authz` of the
//! request it is asked about: `allow`, `deny`, `hang` or `error`. Whatever says nothing it knows is denied.
//!
//! On its HTTP port `/count` tells how often it was asked, and what last; `/count/reset` begins again.

use std::sync::{Arc, Mutex, PoisonError};

use ambit_xds::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use ambit_xds::proto::envoy::config::core::v3::{HeaderValue as Field, HeaderValueOption};
use ambit_xds::proto::envoy::service::auth::v3::attribute_context::Peer;
use ambit_xds::proto::envoy::service::auth::v3::check_response::HttpResponse;
use ambit_xds::proto::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use ambit_xds::proto::envoy::r#type::v3::HttpStatus;
use ambit_xds::proto::google::rpc;
use futures_util::future::try_join;
use http::header::{SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::{Code, Request, Response, Status};

use super::listen::{self, as_json, as_text, listen};
use super::proto::auth::authorization_server::{Authorization, AuthorizationServer};
use crate::serve::{Body, listed};

/// The header that tells what to answer.
const WISH: &str = "x-authz";
/// Whom a yes tells the application to serve.
const USER: &str = "ann";

/// An authorizer.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port of `envoy.service.auth.v3.Authorization`.
    #[arg(long)]
    grpc_port: u16,
    /// Port of the HTTP form, and of `/count`.
    #[arg(long)]
    http_port: u16,
}

/// Serves until it is ended from outside.
///
/// # Errors
/// If a port cannot be had, or accepting fails for good.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let authorizer = Authorizer::default();
    let server = AuthorizationServer::new(authorizer.clone());
    let grpc =
        listen("authorizer, gRPC,", options.grpc_port, move |request| listen::grpc(server.clone(), request));
    let http = listen("authorizer, HTTP,", options.http_port, move |request| {
        let authorizer = authorizer.clone();
        async move { Ok(authorizer.answer(&request).await) }
    });
    try_join(grpc, http).await.map(|((), ())| ())
}

/// What the one who is asked about wants to happen.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Allow,
    Deny,
    Hang,
    Fail,
}

impl Wish {
    fn of(told: Option<&str>) -> Self {
        match told {
            Some("allow") => Self::Allow,
            Some("hang") => Self::Hang,
            Some("error") => Self::Fail,
            Some(_) | None => Self::Deny,
        }
    }
}

/// What it was asked so far.
#[derive(Debug, Default)]
struct Counts {
    grpc: u64,
    http: u64,
    last: Value,
}

#[derive(Debug, Clone, Default)]
struct Authorizer(Arc<Mutex<Counts>>);

impl Authorizer {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The HTTP form.
    async fn answer(&self, request: &http::Request<Incoming>) -> http::Response<Body> {
        match request.uri().path() {
            "/count" => return self.told(),
            "/count/reset" => {
                self.with(|counts| *counts = Counts::default());
                return self.told();
            }
            _ => {}
        }
        let headers = request.headers();
        let last = json!({
            "method": request.method().as_str(),
            "path": request.uri().path_and_query().map(ToString::to_string),
            "headers": listed(headers),
        });
        self.with(|counts| {
            counts.http += 1;
            counts.last = last;
        });
        match Wish::of(headers.get(WISH).and_then(|wish| wish.to_str().ok())) {
            Wish::Allow => {
                let mut answer = as_text(StatusCode::OK, "");
                let told = answer.headers_mut();
                told.insert("x-user", HeaderValue::from_static(USER));
                told.insert("x-unlisted", HeaderValue::from_static("not to be told"));
                told.insert(SET_COOKIE, HeaderValue::from_static("seen=http"));
                answer
            }
            Wish::Deny => {
                let mut answer = as_text(StatusCode::UNAUTHORIZED, "not today, by HTTP");
                denial(answer.headers_mut());
                answer
            }
            Wish::Hang => std::future::pending().await,
            Wish::Fail => as_text(StatusCode::INTERNAL_SERVER_ERROR, "failed, as asked"),
        }
    }

    fn told(&self) -> http::Response<Body> {
        let told = self.with(|counts| json!({"grpc": counts.grpc, "http": counts.http, "last": counts.last}));
        as_json(&told)
    }
}

fn denial(headers: &mut HeaderMap) {
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Test realm=\"shop\""));
    headers.insert("x-why", HeaderValue::from_static("as asked"));
}

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let principal = |peer: Option<Peer>| peer.unwrap_or_default().principal;
        let http = attributes.request.unwrap_or_default().http.unwrap_or_default();
        let wish = Wish::of(http.headers.get(WISH).map(String::as_str));
        let last = json!({
            "method": http.method,
            "path": http.path,
            "host": http.host,
            "protocol": http.protocol,
            "headers": http.headers,
            "source": principal(attributes.source),
            "destination": principal(attributes.destination),
        });
        self.with(|counts| {
            counts.grpc += 1;
            counts.last = last;
        });
        match wish {
            Wish::Allow => Ok(Response::new(allowed())),
            Wish::Deny => Ok(Response::new(denied())),
            Wish::Hang => std::future::pending().await,
            Wish::Fail => Err(Status::internal("failed, as asked")),
        }
    }
}

fn field(name: &str, value: &str, way: HeaderAppendAction) -> HeaderValueOption {
    let header = Field { key: name.to_owned(), value: value.to_owned(), ..Field::default() };
    HeaderValueOption { header: Some(header), append_action: way.into(), ..HeaderValueOption::default() }
}

fn status(code: Code) -> Option<rpc::Status> {
    Some(rpc::Status { code: code.into(), ..rpc::Status::default() })
}

fn allowed() -> CheckResponse {
    use HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let mut appended = field("x-groups", "told", AppendIfExistsOrAdd);
    // To be appended to a request's header it has to be said in the old way, as Envoy reads it.
    appended.append = Some(true);
    let ok = OkHttpResponse {
        headers: vec![field("x-user", USER, OverwriteIfExistsOrAdd), appended],
        headers_to_remove: vec!["x-secret".to_owned()],
        response_headers_to_add: vec![field("x-seen", "grpc", AppendIfExistsOrAdd)],
        ..OkHttpResponse::default()
    };
    CheckResponse { status: status(Code::Ok), http_response: Some(HttpResponse::OkResponse(ok)) }
}

fn denied() -> CheckResponse {
    use HeaderAppendAction::OverwriteIfExistsOrAdd;
    let headers = vec![
        field("www-authenticate", "Test realm=\"shop\"", OverwriteIfExistsOrAdd),
        field("x-why", "as asked", OverwriteIfExistsOrAdd),
    ];
    let no = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers,
        body: "not today, by gRPC".to_owned(),
    };
    CheckResponse {
        status: status(Code::PermissionDenied),
        http_response: Some(HttpResponse::DeniedResponse(no)),
    }
}
