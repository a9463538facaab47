//! A rate limit service: `--limit KEY:N` admits N questions for each value of an entry's key, and the others without end.
//! A value of `hang` gets no answer, one of `error` an error.
//!
//! On the same port `/count` tells how often it was asked, and what last; `/count/reset` begins again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_xds::proto::envoy::config::core::v3::HeaderValue as Field;
use ambit_xds::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use ambit_xds::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use ambit_xds::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use http::StatusCode;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::listen::{self, Answered, as_json, as_text, is_grpc, listen};
use super::proto::limits::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};

/// Most values that are counted apart.
const VALUES_MAX: usize = 10_000;
/// When a limit that is reached is told to begin anew, in seconds.
const RESET_SECONDS: i64 = 30;

/// A rate limit service.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port of `envoy.service.ratelimit.v3.RateLimitService`, and of `/count`.
    #[arg(long)]
    port: u16,
    /// `KEY:N`; may be said again.
    #[arg(long, value_parser = limit)]
    limit: Vec<(String, u64)>,
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let parsed = text.rsplit_once(':').and_then(|(key, most)| Some((key.to_owned(), most.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not KEY:N"))
}

/// Serves until it is ended from outside.
///
/// # Errors
/// If the port cannot be had, or accepting fails for good.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let limits = Limits { most: options.limit.into_iter().collect(), counts: Arc::default() };
    let server = RateLimitServiceServer::new(limits.clone());
    listen("rate limit service", options.port, move |request| answer(server.clone(), limits.clone(), request))
        .await
}

async fn answer(
    server: RateLimitServiceServer<Limits>,
    limits: Limits,
    request: http::Request<Incoming>,
) -> Answered {
    if is_grpc(&request) {
        return listen::grpc(server, request).await;
    }
    Ok(match request.uri().path() {
        "/count" => limits.told(),
        "/count/reset" => {
            limits.with(|counts| *counts = Counts::default());
            limits.told()
        }
        _ => as_text(StatusCode::NOT_FOUND, "there is only /count\n"),
    })
}

#[derive(Debug, Default)]
struct Counts {
    questions: u64,
    last: Value,
    /// By domain, key and value.
    taken: BTreeMap<(String, String, String), u64>,
}

#[derive(Debug, Clone)]
struct Limits {
    most: BTreeMap<String, u64>,
    counts: Arc<Mutex<Counts>>,
}

impl Limits {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn told(&self) -> http::Response<crate::serve::Body> {
        as_json(&self.with(|counts| json!({"questions": counts.questions, "last": counts.last})))
    }

    /// Takes one of each limit that a descriptor names; whether it is within all of them.
    fn take(&self, domain: &str, descriptor: &RateLimitDescriptor) -> bool {
        let mut within = true;
        for entry in &descriptor.entries {
            let Some(most) = self.most.get(&entry.key) else { continue };
            let key = (domain.to_owned(), entry.key.clone(), entry.value.clone());
            within &= self.with(|counts| {
                if counts.taken.len() >= VALUES_MAX && !counts.taken.contains_key(&key) {
                    return false;
                }
                let taken = counts.taken.entry(key).or_default();
                *taken += 1;
                *taken <= *most
            });
        }
        within
    }
}

fn shown(request: &RateLimitRequest) -> Value {
    let one = |descriptor: &RateLimitDescriptor| -> Vec<[String; 2]> {
        descriptor.entries.iter().map(|entry| [entry.key.clone(), entry.value.clone()]).collect()
    };
    let all: Vec<_> = request.descriptors.iter().map(one).collect();
    json!({"domain": request.domain, "descriptors": all, "hits_addend": request.hits_addend})
}

fn field(name: &str, value: &str) -> Field {
    Field { key: name.to_owned(), value: value.to_owned(), ..Field::default() }
}

#[tonic::async_trait]
impl RateLimitService for Limits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let asked = request.into_inner();
        let last = shown(&asked);
        self.with(|counts| {
            counts.questions += 1;
            counts.last = last;
        });
        let says = |word: &str| {
            let mut entries = asked.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
            entries.any(|entry| entry.value == word)
        };
        if says("hang") {
            return std::future::pending().await;
        }
        if says("error") {
            return Err(Status::internal("failed, as asked"));
        }
        let within: Vec<bool> =
            asked.descriptors.iter().map(|descriptor| self.take(&asked.domain, descriptor)).collect();
        Ok(Response::new(response(&within)))
    }
}

fn response(within: &[bool]) -> RateLimitResponse {
    let code = |within: bool| if within { Code::Ok } else { Code::OverLimit };
    let status = |within: &bool| DescriptorStatus {
        code: code(*within).into(),
        duration_until_reset: Some(prost_types::Duration { seconds: RESET_SECONDS, nanos: 0 }),
        ..DescriptorStatus::default()
    };
    RateLimitResponse {
        overall_code: code(within.iter().all(|within| *within)).into(),
        statuses: within.iter().map(status).collect(),
        response_headers_to_add: vec![field("x-limited-by", "rls")],
        request_headers_to_add: vec![field("x-counted", "yes")],
        ..RateLimitResponse::default()
    }
}
