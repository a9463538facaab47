//! Keys by which tokens are checked: those that rules bring with them, and those that are fetched.
//!
//! A set that is fetched has one task ([`remote`]), which is the only one that fetches it. Requests only read what is
//! there: checking a signature never waits. A request whose rules need a set that nobody has tried to fetch yet waits
//! for that first try ([`Keys::ready`]), and one whose token has an unknown key for a fetch that this sets off
//! ([`Keys::renewed`]). Without keys no token is accepted.

mod fetch;
pub(crate) mod guard;
mod jwk;
mod remote;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_policy::jwt::{self, Rule, RuleSet, SignatureError, SignedToken, Verifier};
use ambit_runtime::tasks;
use ambit_types::Str;
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use guard::Guard;

use crate::calls::Through;
use crate::{Policies, Waypoint};
use fetch::{Fetcher, Source};
use jwk::Set;
use remote::Remote;

/// Sets that are kept of each kind; rules beyond it have no keys.
const SETS_MAX: usize = 256;

/// Fetches under way.
const FETCHES_MAX: usize = 8;

/// Longest time for a fetch, whatever a rule says.
const FETCH_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How keys are fetched and kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which addresses may be connected to.
    pub guard: Guard,
    /// A file of PEM roots for https; the system's if none is named.
    pub roots: Option<PathBuf>,
    /// Pause between fetches of a set that can be fetched; 20 min, of which up to a tenth is left out by chance.
    pub refresh: Duration,
    /// Shortest pause between fetches that unknown keys set off; 10 s.
    pub unknown_pause: Duration,
    /// First pause after a failure, doubled with each further one up to a minute; 1 s.
    pub retry: Duration,
    /// How long a set is used after it could last be fetched; 24 h.
    pub keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            roots: None,
            refresh: Duration::from_secs(20 * 60),
            unknown_pause: Duration::from_secs(10),
            retry: Duration::from_secs(1),
            keep: Duration::from_secs(24 * 3600),
        }
    }
}

/// All sets of keys.
#[derive(Debug)]
pub struct Keys {
    sets: ArcSwap<Sets>,
    shared: Arc<Shared>,
}

/// What fetching tasks share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    fetcher: Fetcher,
    places: Semaphore,
}

#[derive(Debug, Clone, Default)]
struct Sets {
    inline: HashMap<Str, Option<Arc<Set>>>,
    remote: HashMap<Source, Arc<Remote>>,
}

impl Keys {
    /// Without any set yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        let (guard, roots) = (settings.guard.clone(), settings.roots.clone());
        let fetcher = Fetcher { guard, roots, through: Through::default() };
        let shared = Shared { settings, fetcher, places: Semaphore::new(FETCHES_MAX) };
        Arc::new(Self { sets: ArcSwap::default(), shared: Arc::new(shared) })
    }

    /// Names the waypoint through which services of the mesh are called. Without it all hosts are resolved by DNS.
    pub(crate) fn attach(&self, waypoint: &Arc<Waypoint>) {
        self.shared.fetcher.through.set(waypoint);
    }

    /// Goes by these rules from now on: begins to fetch what they need, and forgets what they do not. To be called
    /// inside a runtime.
    pub fn publish(&self, policies: &Policies) {
        let applied = policies.services.values().chain([&policies.all]);
        let rules: Vec<&Rule> = applied.flat_map(|applied| applied.tokens.rules()).collect();
        let before = self.sets.load_full();
        let mut next = Sets::default();
        for rule in &rules {
            self.add(rule, &before, &mut next);
        }
        for (source, remote) in &before.remote {
            if !next.remote.contains_key(source) {
                remote.retire();
            }
        }
        self.sets.store(Arc::new(next));
    }

    /// Takes over or makes the set of a rule.
    fn add(&self, rule: &Rule, before: &Sets, next: &mut Sets) {
        let source = match source(rule) {
            Needed::Inline(text) => {
                if next.inline.len() < SETS_MAX && !next.inline.contains_key(text) {
                    let known = before.inline.get(text).cloned();
                    next.inline.insert(text.clone(), known.unwrap_or_else(|| read(text)));
                }
                return;
            }
            Needed::Fetched(source) => source,
            Needed::Nothing => return,
        };
        let timeout = rule.fetch_timeout.min(FETCH_TIMEOUT_MAX);
        if let Some(shared) = next.remote.get(&source) {
            return shared.allow(timeout);
        }
        if next.remote.len() >= SETS_MAX {
            tracing::warn!(?source, "more than {SETS_MAX} key sets: this one is not fetched");
            metrics::counter!("ambit_waypoint_jwks_refused_total").increment(1);
            return;
        }
        let remote = match before.remote.get(&source) {
            Some(known) => known.clone(),
            None => {
                let remote = Arc::new(Remote::new(source.clone(), timeout));
                tasks::spawn("waypoint-jwks", remote.clone().run(self.shared.clone()));
                remote
            }
        };
        remote.allow(timeout);
        next.remote.insert(source, remote);
    }

    /// Waits for the first try to fetch each set that the rules need. What fails is tried again without anybody
    /// waiting for it.
    pub async fn ready(&self, rules: &RuleSet) {
        for remote in self.remotes(rules) {
            remote.tried().await;
        }
    }

    /// Waits for a fetch that an unknown key has set off, if one is due or under way. False if there is none, and then
    /// nothing has changed.
    pub async fn renewed(&self, rules: &RuleSet) -> bool {
        let mut is_any = false;
        for remote in self.remotes(rules) {
            is_any |= remote.renewed(self.shared.settings.unknown_pause).await;
        }
        is_any
    }

    fn remotes(&self, rules: &RuleSet) -> Vec<Arc<Remote>> {
        let sets = self.sets.load();
        let sources = rules.rules().iter().filter_map(|rule| match source(rule) {
            Needed::Fetched(source) => Some(source),
            Needed::Inline(_) | Needed::Nothing => None,
        });
        sources.filter_map(|source| sets.remote.get(&source).cloned()).collect()
    }
}

/// Where a rule's keys come from.
enum Needed<'r> {
    Inline(&'r Str),
    Fetched(Source),
    /// From an issuer that the rule does not name.
    Nothing,
}

fn source(rule: &Rule) -> Needed<'_> {
    match &rule.keys {
        jwt::Keys::Inline(text) => Needed::Inline(text),
        jwt::Keys::Uri(uri) => Needed::Fetched(Source::Uri(uri.clone())),
        jwt::Keys::Discovery if rule.issuer.is_empty() => Needed::Nothing,
        jwt::Keys::Discovery => Needed::Fetched(Source::Issuer(rule.issuer.clone())),
    }
}

/// Reads a set that a rule brings with it; none if it has no key that can be used.
fn read(text: &str) -> Option<Arc<Set>> {
    match Set::parse(text.as_bytes()) {
        Ok(set) => Some(Arc::new(set)),
        Err(error) => {
            tracing::warn!(%error, "a rule brings keys that cannot be used: its tokens are rejected");
            metrics::counter!("ambit_waypoint_jwks_refused_total").increment(1);
            None
        }
    }
}

impl Verifier for Keys {
    fn verify(&self, rule: &Rule, token: &SignedToken<'_>) -> Result<(), SignatureError> {
        let sets = self.sets.load();
        match source(rule) {
            Needed::Inline(text) => match sets.inline.get(text) {
                Some(Some(set)) => set.verify(token),
                Some(None) | None => Err(SignatureError::KeysUnavailable),
            },
            Needed::Fetched(source) => match sets.remote.get(&source) {
                Some(remote) => remote.verify(token, self.shared.settings.keep),
                None => Err(SignatureError::KeysUnavailable),
            },
            Needed::Nothing => Err(SignatureError::KeysUnavailable),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for remote in self.sets.load().remote.values() {
            remote.retire();
        }
    }
}

#[cfg(test)]
mod tests;
