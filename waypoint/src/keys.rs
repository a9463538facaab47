//! Keys by which tokens are checked: those that rules bring with them, and those that are fetched.
//!
//! A set that is fetched has one task (`remote`), which is the only one that fetches it. Requests only read what is
//! there: checking a signature never waits. A request whose rules need a set that nobody has tried to fetch yet waits
//! for that first try ([`Keys::ready`]), and one whose token has an unknown key for a fetch that this sets off
//! ([`Keys::renewed`]). Without keys no token is accepted.

mod fetch;
pub(crate) mod guard;
mod jwk;
mod mesh;
mod remote;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_policy::jwt::{self, Rule, RuleSet, SignatureError, SignedToken, Verifier};
use ambit_runtime::tasks;
use ambit_types::{ServiceKey, Str};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

pub use guard::Guard;

use crate::calls::Through;
use crate::{Applied, Policies, Waypoint};
use fetch::{At, Fetcher, Source};
use jwk::Set;
use remote::Remote;

/// Sets that are kept of each kind; rules beyond it have no keys. Who has one keeps it.
const SETS_MAX: usize = 256;

/// The same for the rules of one namespace, so that none takes the place of all others.
const NAMESPACE_SETS_MAX: usize = 32;

/// Fetches under way.
const FETCHES_MAX: usize = 64;

/// The same for one namespace.
const NAMESPACE_FETCHES_MAX: usize = 4;

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
    /// The policies of the last time.
    told: Mutex<Option<Policies>>,
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
    inline: HashMap<Inline, Option<Arc<Set>>>,
    remote: HashMap<Source, Arc<Remote>>,
    /// Fetches under way of each namespace.
    places: HashMap<Str, Arc<Semaphore>>,
    /// Those that found no place.
    refused: BTreeSet<Source>,
    refused_inline: BTreeSet<Inline>,
}

/// A rule's namespace, and the keys that it brings.
type Inline = (Str, Str);

/// Counts sets by namespace.
#[derive(Debug, Default)]
struct Shares {
    all: usize,
    each: HashMap<Str, usize>,
}

impl Shares {
    /// Takes a place for one more; false if there is none.
    fn take(&mut self, namespace: &Str) -> bool {
        let own = self.each.entry(namespace.clone()).or_default();
        if self.all >= SETS_MAX || *own >= NAMESPACE_SETS_MAX {
            return false;
        }
        (self.all, *own) = (self.all + 1, *own + 1);
        true
    }
}

impl Keys {
    /// Without any set yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        let (guard, roots) = (settings.guard.clone(), settings.roots.clone());
        let fetcher = Fetcher { guard, roots, through: Through::default() };
        let shared = Shared { settings, fetcher, places: Semaphore::new(FETCHES_MAX) };
        Arc::new(Self { sets: ArcSwap::default(), told: Mutex::default(), shared: Arc::new(shared) })
    }

    /// Names the waypoint through which services of the mesh are called. Without it all hosts are resolved by DNS.
    pub(crate) fn attach(&self, waypoint: &Arc<Waypoint>) {
        self.shared.fetcher.through.set(waypoint);
    }

    /// Goes by these rules from now on: begins to fetch what they need, and forgets what they do not. To be called
    /// inside a runtime.
    pub fn publish(&self, policies: &Policies) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref().is_some_and(|before| are_same(before, policies)) {
            return;
        }
        *told = Some(policies.clone());
        let applied = policies.services.values().chain([&policies.all]);
        let (mut sources, mut inline) = (BTreeMap::<Source, Duration>::new(), BTreeSet::new());
        for rule in applied.flat_map(|applied| applied.tokens.rules()) {
            match source(rule) {
                Needed::Inline(own) => _ = inline.insert(own),
                Needed::Fetched(source) => {
                    let timeout = rule.fetch_timeout.min(FETCH_TIMEOUT_MAX);
                    let longest = sources.entry(source).or_default();
                    *longest = timeout.max(*longest);
                }
                Needed::Nothing => {}
            }
        }
        let before = self.sets.load_full();
        let mut next = Sets::default();
        take_inline(inline, &before, &mut next);
        self.take_remote(sources, &before, &mut next);
        for (source, remote) in &before.remote {
            if !next.remote.contains_key(source) {
                remote.retire();
            }
        }
        self.sets.store(Arc::new(next));
    }

    /// Takes over the sets that there are, then makes the others, as far as there are places.
    fn take_remote(&self, sources: BTreeMap<Source, Duration>, before: &Sets, next: &mut Sets) {
        let mut shares = Shares::default();
        let (held, fresh): (Vec<_>, Vec<_>) =
            sources.into_iter().partition(|(source, _)| before.remote.contains_key(source));
        for (source, timeout) in held.into_iter().chain(fresh) {
            let namespace = &source.namespace;
            if !shares.take(namespace) {
                if !before.refused.contains(&source) {
                    tracing::warn!(%source, %namespace, "{TOO_MANY}");
                    metrics::counter!("ambit_waypoint_jwks_refused_total").increment(1);
                }
                next.refused.insert(source);
                continue;
            }
            let known = before.places.get(namespace).cloned();
            let fresh = || Arc::new(Semaphore::new(NAMESPACE_FETCHES_MAX));
            let places = next.places.entry(namespace.clone()).or_insert_with(|| known.unwrap_or_else(fresh));
            let remote = match before.remote.get(&source) {
                Some(known) => known.clone(),
                None => {
                    let remote = Arc::new(Remote::new(source.clone(), timeout, places.clone()));
                    tasks::spawn("waypoint-jwks", remote.clone().run(self.shared.clone()));
                    remote
                }
            };
            remote.allow(timeout);
            next.remote.insert(source, remote);
        }
    }

    /// Waits for the first try to fetch each set that the rules need. What fails is tried again without anybody
    /// waiting for it.
    pub async fn ready(&self, rules: &RuleSet) {
        let remotes = self.remotes(rules);
        // All at once: a slow one must not add to the time of the others.
        join_all(remotes.iter().map(|remote| remote.tried())).await;
    }

    /// Waits for a fetch that an unknown key has set off, if one is due or under way. False if there is none, and then
    /// nothing has changed.
    pub async fn renewed(&self, rules: &RuleSet) -> bool {
        let (remotes, pause) = (self.remotes(rules), self.shared.settings.unknown_pause);
        let renewed = join_all(remotes.iter().map(|remote| remote.renewed(pause))).await;
        renewed.contains(&true)
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

/// What is said of a set beyond the bounds.
const TOO_MANY: &str = "too many key sets, of this namespace or of all: no token is accepted by this one";

/// Takes over what was read, then reads the others, as far as there are places.
fn take_inline(wanted: BTreeSet<Inline>, before: &Sets, next: &mut Sets) {
    let mut shares = Shares::default();
    let (held, fresh): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|own| before.inline.contains_key(own));
    for own in held.into_iter().chain(fresh) {
        if shares.take(&own.0) {
            let known = before.inline.get(&own).cloned();
            let set = known.unwrap_or_else(|| read(&own.1));
            next.inline.insert(own, set);
            continue;
        }
        if !before.refused_inline.contains(&own) {
            tracing::warn!(namespace = %own.0, "{TOO_MANY}");
            metrics::counter!("ambit_waypoint_jwks_refused_total").increment(1);
        }
        next.refused_inline.insert(own);
    }
}

/// Whether nothing has changed; what has is another one.
fn are_same(before: &Policies, now: &Policies) -> bool {
    let is_same = |(key, applied): (&ServiceKey, &Arc<Applied>)| {
        before.services.get(key).is_some_and(|known| Arc::ptr_eq(known, applied))
    };
    Arc::ptr_eq(&before.all, &now.all)
        && before.services.len() == now.services.len()
        && now.services.iter().all(is_same)
}

/// Where a rule's keys come from.
enum Needed {
    Inline(Inline),
    Fetched(Source),
    /// From an issuer that the rule does not name.
    Nothing,
}

fn source(rule: &Rule) -> Needed {
    let namespace = rule.namespace.clone();
    let at = match &rule.keys {
        jwt::Keys::Inline(text) => return Needed::Inline((namespace, text.clone())),
        jwt::Keys::Uri(uri) => At::Uri(uri.clone()),
        jwt::Keys::Discovery if rule.issuer.is_empty() => return Needed::Nothing,
        jwt::Keys::Discovery => At::Issuer(rule.issuer.clone()),
    };
    Needed::Fetched(Source { namespace, at })
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
            Needed::Inline(own) => match sets.inline.get(&own) {
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
