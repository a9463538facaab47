//! External authorizers: asked about requests that CUSTOM policies match, in Envoy's gRPC protocol or in HTTP.
//!
//! An authorizer is a service of the mesh, called through the tunnels and certificates of this waypoint. Its answer is
//! bounded and checked: it may neither frame, route nor identify a request or response. No answer refuses, unless the
//! provider fails open; what cannot be told to an authorizer, or not while it has as many requests as it may, is refused
//! even then, because a caller could bring it about.

mod fields;
mod grpc;
mod http;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ambit_policy::http::provider::{Check, Provider};
use ambit_policy::http::{Answer, Ask};
use ambit_types::{ServiceKey, Str};
use ambit_xds::ext_authz::Unreadable;
use arc_swap::ArcSwap;
use tracing::debug;

use crate::calls::{self, CallError, Named, ROOT_NAMESPACE};
use crate::grpc::GrpcError;
use crate::hooks::{Answering, Asked, Checked, External};

/// Providers by name, as discovery tells them.
pub type Known = BTreeMap<Str, Arc<Provider>>;

/// The providers that policies may name. Copies share what they are told.
#[derive(Debug, Clone, Default)]
pub struct Providers(Arc<ArcSwap<Known>>);

impl Providers {
    /// Goes by these from now on; requests that are being asked about end with those before.
    pub fn tell(&self, known: Known) {
        self.0.store(Arc::new(known));
    }
}

impl External for Providers {
    fn check<'a>(&'a self, ask: &'a Ask, asked: Asked<'a>) -> Answering<'a> {
        Box::pin(async move {
            let provider = self.0.load().get(&*ask.provider).cloned();
            match provider {
                Some(provider) => settled(&provider, answer(&provider, &asked).await),
                None => {
                    debug!(provider = %ask.provider, policy = %ask.policy, "there is no such provider");
                    count("unknown");
                    Checked::unavailable()
                }
            }
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// The service is not in the mesh, or only a namespace that is not the mesh's calls itself so.
    #[error("there is no service {0} that the mesh's provider could mean")]
    NoService(Str),
    /// It could not be called.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It could not be called in gRPC.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// It did not answer in time.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// It failed itself.
    #[error("it answered with status {0}")]
    Status(u16),
    /// It answered something that is no answer.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Its answer has a header that is none.
    #[error("its answer has a header field that is none")]
    Field,
    /// The request cannot be told.
    #[error("the request has {0}, which cannot be told to it")]
    Untold(&'static str),
}

async fn answer(provider: &Provider, asked: &Asked<'_>) -> Result<Checked, NoAnswer> {
    let service = service(provider, asked)?;
    match &provider.check {
        Check::Grpc => grpc::check(provider, &service, asked).await,
        Check::Http(check) => {
            let work = http::check(provider, check, &service, asked);
            let within = tokio::time::timeout(provider.timeout, work).await;
            within.unwrap_or(Err(NoAnswer::Timeout(provider.timeout)))
        }
    }
}

/// The service that a provider means. Without a namespace its host is read as the root namespace reads it, whose owner
/// has written it; a Kubernetes service may be anywhere, since its name says where.
fn service(provider: &Provider, asked: &Asked<'_>) -> Result<ServiceKey, NoAnswer> {
    let hostname = &provider.service.hostname;
    if let Some(namespace) = &provider.service.namespace {
        return Ok(ServiceKey::new(namespace.clone(), hostname.clone()));
    }
    match calls::named(&asked.waypoint.state(), hostname, ROOT_NAMESPACE) {
        Named::Own(service) | Named::Other(service) => Ok(service),
        Named::Foreign => Err(NoAnswer::NoService(hostname.clone())),
    }
}

/// What an answer, or none, comes to.
fn settled(provider: &Provider, answer: Result<Checked, NoAnswer>) -> Checked {
    let error = match answer {
        Ok(checked) => {
            count(match checked.answer {
                Answer::Allowed => "allowed",
                Answer::Denied => "denied",
                Answer::Unavailable => "unavailable",
            });
            return checked;
        }
        Err(error) => error,
    };
    let may_pass = provider.fail_open && !is_of_callers(&error);
    debug!(provider = %provider.name, %error, may_pass, "an authorizer gave no answer");
    if may_pass {
        count("failed open");
        return Checked::plain(Answer::Allowed);
    }
    count("unavailable");
    Checked { status: Some(provider.status_on_error), ..Checked::unavailable() }
}

/// Whether a caller could have brought it about.
fn is_of_callers(error: &NoAnswer) -> bool {
    match error {
        NoAnswer::Untold(_) => true,
        NoAnswer::Call(call) | NoAnswer::Grpc(GrpcError::Call(call)) => matches!(call, CallError::Overflow),
        NoAnswer::NoService(_)
        | NoAnswer::Grpc(_)
        | NoAnswer::Timeout(_)
        | NoAnswer::Status(_)
        | NoAnswer::Unreadable(_)
        | NoAnswer::Field => false,
    }
}

fn count(result: &'static str) {
    metrics::counter!("ambit_waypoint_authorizer_answers_total", "result" => result).increment(1);
}
