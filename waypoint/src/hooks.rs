//! Whom the request path asks what it cannot decide by itself: signatures of tokens, and external authorizers.
//!
//! Only the questions are here; without anybody to ask, every answer refuses.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ambit_policy::http::{Answer, Ask};
use ambit_policy::jwt::{Rule, SignatureError, SignedToken, Verifier};
use ambit_types::Identity;
use http::HeaderMap;

/// A request as an external authorizer is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The caller's proven identity.
    pub peer: &'a Identity,
    /// The method.
    pub method: &'a str,
    /// Host and port.
    pub authority: &'a str,
    /// Path and query as they would go upstream.
    pub path: &'a str,
    /// Headers as they would go upstream.
    pub headers: &'a HeaderMap,
}

/// What an authorizer says, and what it changes.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Yes, no, or no answer.
    pub answer: Answer,
    /// Headers set on the request before it goes on.
    pub set_headers: HeaderMap,
    /// Status of the refusal; 403 if it says nothing.
    pub status: Option<u16>,
    /// Headers of the refusal.
    pub answer_headers: HeaderMap,
    /// Body of the refusal.
    pub body: bytes::Bytes,
}

impl Checked {
    /// No answer was to be had.
    pub fn unavailable() -> Self {
        Self {
            answer: Answer::Unavailable,
            set_headers: HeaderMap::new(),
            status: None,
            answer_headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        }
    }
}

/// An answer that is awaited.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Checked> + Send + 'a>>;

/// External authorizers (CUSTOM policies) by name.
pub trait External: Send + Sync {
    /// Asks the provider of `ask` about a request. Bounds its own time.
    fn check<'a>(&'a self, ask: &'a Ask, asked: Asked<'a>) -> Answering<'a>;
}

/// Whom to ask.
#[derive(Clone)]
pub struct Hooks {
    /// Checks signatures of tokens.
    pub verifier: Arc<dyn Verifier + Send + Sync>,
    /// Asks external authorizers.
    pub external: Arc<dyn External>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

impl Default for Hooks {
    /// Nobody: tokens are rejected, CUSTOM policies refuse.
    fn default() -> Self {
        Self { verifier: Arc::new(Nobody), external: Arc::new(Nobody) }
    }
}

struct Nobody;

impl Verifier for Nobody {
    fn verify(&self, _: &Rule, _: &SignedToken<'_>) -> Result<(), SignatureError> {
        Err(SignatureError::KeysUnavailable)
    }
}

impl External for Nobody {
    fn check<'a>(&'a self, _: &'a Ask, _: Asked<'a>) -> Answering<'a> {
        Box::pin(std::future::ready(Checked::unavailable()))
    }
}
