//! Asking the CA for certificates.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use ambit_types::Identity;
use ambit_xds::proto::istio::v1::auth::IstioCertificateRequest;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Request;
use tonic::transport::Channel;

use super::channel::{Caller, Target};
use super::services::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::tls::credential::PemChain;
use crate::tls::store::{Ca, Signing};

/// A CA that speaks `IstioCertificateService`.
#[derive(Debug)]
pub struct CaClient {
    target: Target,
    caller: Caller,
    lifetime: Duration,
    /// Kept while it works; after a failure the next call reads the roots again.
    channel: Mutex<Option<Channel>>,
}

impl CaClient {
    /// A client that asks for certificates of the given lifetime.
    pub fn new(target: Target, caller: Caller, lifetime: Duration) -> Self {
        Self { target, caller, lifetime, channel: Mutex::new(None) }
    }

    async fn channel(&self) -> Result<Channel, String> {
        let held = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = held {
            return Ok(channel);
        }
        let channel = self.target.connect().await.map_err(|e| with_causes(&e))?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Ok(channel)
    }

    async fn ask(&self, identity: &Identity, csr_pem: &str) -> Result<PemChain, String> {
        let channel = self.channel().await?;
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr_pem.to_owned(),
            validity_duration: i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: Some(impersonation(identity)),
        });
        self.caller.identify(request.metadata_mut()).map_err(|e| with_causes(&e))?;
        let before = clock::wall();
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        match answer {
            Ok(answer) => {
                let told = answer.metadata().get("date").and_then(|date| date.to_str().ok());
                if let Some(ahead) = told.and_then(|date| offset(date, before, clock::wall())) {
                    metrics::gauge!("ambit_clock_offset_seconds").set(ahead);
                }
                chain(answer.into_inner().cert_chain)
            }
            Err(status) => {
                *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(format!("the CA answered {:?}: {}", status.code(), status.message()))
            }
        }
    }
}

impl Ca for CaClient {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(self.ask(identity, csr_pem))
    }
}

/// By how many seconds our clock is ahead of a server's that wrote `date` between two moments of ours; none if it is no
/// date. The server tells whole seconds: what fits into one of them is no difference.
fn offset(date: &str, before: SystemTime, after: SystemTime) -> Option<f64> {
    let from = httpdate::parse_http_date(date).ok()?;
    let until = from + Duration::from_secs(1);
    let since = |early: SystemTime, late: SystemTime| {
        late.duration_since(early).map_or(0.0, |difference| difference.as_secs_f64())
    };
    Some(since(until, before) - since(after, from))
}

/// Metadata that names whose certificate is wanted.
fn impersonation(identity: &Identity) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() }
}

/// Leaf first, intermediates, and the root bundle last.
fn chain(mut parts: Vec<String>) -> Result<PemChain, String> {
    if parts.len() < 2 {
        return Err(format!("the CA sent {} parts; a leaf and a root bundle are needed", parts.len()));
    }
    let roots = parts.pop().unwrap_or_default();
    let leaf = parts.remove(0);
    Ok(PemChain { leaf, intermediates: parts, roots })
}

/// An error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_clock_is_ahead_by_what_no_whole_second_explains() {
        let at = |seconds: f64| UNIX_EPOCH + Duration::from_secs_f64(784_111_777.0 + seconds);
        let rows = [(0.0, 0.1, 0.0), (0.9, 1.2, 0.0), (5.0, 5.5, 4.0), (-6.0, -3.0, -3.0)];
        for (before, after, want) in rows {
            let told = offset("Sun, 06 Nov 1994 08:49:37 GMT", at(before), at(after)).unwrap();
            assert!((told - want).abs() < 1e-3, "{told} for {before}..{after}");
        }
        assert_eq!(offset("yesterday", at(0.0), at(0.0)), None);
    }
}
