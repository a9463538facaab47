//! Whom the request path asks what it cannot decide by itself: signatures of tokens, external authorizers, and the key
//! of sessions.
//!
//! Only the questions are here; without anybody to ask, every answer refuses.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use ambit_policy::http::{Answer, Ask};
use ambit_policy::jwt::{Rule, SignatureError, SignedToken, Verifier};
use ambit_types::Identity;
use ambit_xds::ext_authz::Way;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::Waypoint;
use crate::keys::Keys;
use crate::sessions::Sessions;

/// A request as an external authorizer is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The caller's proven identity.
    pub peer: &'a Identity,
    /// The caller's address.
    pub source: SocketAddr,
    /// The address and port that the caller asked for.
    pub destination: SocketAddr,
    /// The method.
    pub method: &'a str,
    /// Host and port.
    pub authority: &'a str,
    /// Path and query as they would go upstream.
    pub path: &'a str,
    /// Headers as they would go upstream.
    pub headers: &'a HeaderMap,
    /// The version that the caller speaks.
    pub version: Version,
    /// The waypoint that asks, through which an authorizer in the mesh is called.
    pub(crate) waypoint: &'a Arc<Waypoint>,
}

/// What an authorizer says, and what it changes.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Yes, no, or no answer.
    pub answer: Answer,
    /// Changes of the request before it goes on, in order.
    pub request: Vec<FieldChange>,
    /// Names taken off the request after these changes.
    pub remove: Vec<HeaderName>,
    /// Changes of the response, whoever makes it.
    pub response: Vec<FieldChange>,
    /// Status of the refusal; 403 if it says nothing.
    pub status: Option<u16>,
    /// Headers of the refusal.
    pub answer_headers: HeaderMap,
    /// Body of the refusal.
    pub body: bytes::Bytes,
}

/// A header field that an authorizer wants, and what becomes of those of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What becomes of those that are there.
    pub way: Way,
}

impl FieldChange {
    /// Makes the change.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let (name, value) = (self.name.clone(), self.value.clone());
        let is_there = headers.contains_key(&name);
        match self.way {
            Way::Append => _ = headers.append(name, value),
            Way::Set => _ = headers.insert(name, value),
            Way::AddIfAbsent if !is_there => _ = headers.insert(name, value),
            Way::SetIfPresent if is_there => _ = headers.insert(name, value),
            Way::AddIfAbsent | Way::SetIfPresent => {}
        }
    }
}

impl Checked {
    /// An answer that changes nothing.
    pub fn plain(answer: Answer) -> Self {
        Self {
            answer,
            request: Vec::new(),
            remove: Vec::new(),
            response: Vec::new(),
            status: None,
            answer_headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        }
    }

    /// No answer was to be had.
    pub fn unavailable() -> Self {
        Self::plain(Answer::Unavailable)
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
    /// The keys that `verifier` checks with, if they have to be fetched: told of rules, and waited for.
    pub keys: Option<Arc<Keys>>,
    /// Asks external authorizers.
    pub external: Arc<dyn External>,
    /// The key that proves marks of sessions.
    pub sessions: Sessions,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// The same with tokens checked by these keys.
    pub fn with_keys(self, keys: Arc<Keys>) -> Self {
        Self { verifier: keys.clone(), keys: Some(keys), ..self }
    }
}

impl Default for Hooks {
    /// Nobody: tokens are rejected, CUSTOM policies refuse.
    fn default() -> Self {
        let sessions = Sessions::default();
        Self { verifier: Arc::new(Nobody), keys: None, external: Arc::new(Nobody), sessions }
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
