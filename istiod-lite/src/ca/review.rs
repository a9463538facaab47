//! Who calls, as an API server says: `TokenReview` (authentication.k8s.io/v1) with an audience.
//!
//! A token is nothing before the server has vouched for it; only then is its own `exp` read. Calls with one token that
//! come together share one review, verdicts are kept for some seconds, and what is under review is bounded, for each
//! address too: a flood costs the API server little and keeps nobody else out. While the server is away, tokens with a
//! verdict go on for those seconds and all others are refused as not reviewed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::Str;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;

use super::authn::{SERVICE_ACCOUNT, Token, TokenFault};

#[cfg(test)]
mod tests;

/// The group that every service account is in.
const ACCOUNTS: &str = "system:serviceaccounts";
/// What the extra members of a bound token begin with.
const BOUND: &str = "authentication.kubernetes.io/";
/// Words of the API server that are kept.
const SAID_BYTES_MAX: usize = 256;

/// Bounds of a [`Reviewer`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Reviews under way at once; default 64.
    pub reviews: usize,
    /// Those of one address; default 16.
    pub reviews_of_address: usize,
    /// Longest review; default 10 s.
    pub timeout: Duration,
    /// How long a good verdict is kept, never past the token's end; default 10 s.
    pub good: Duration,
    /// How long a bad verdict is kept; default 5 s.
    pub bad: Duration,
    /// How long it is remembered that the server could not be asked about a token; default 1 s.
    pub away: Duration,
    /// Good verdicts kept; default 8192, the oldest go first.
    pub good_count: usize,
    /// Bad verdicts kept; default 2048, the oldest go first.
    pub bad_count: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reviews: 64,
            reviews_of_address: 16,
            timeout: Duration::from_secs(10),
            good: Duration::from_secs(10),
            bad: Duration::from_secs(5),
            away: Duration::from_secs(1),
            good_count: 8192,
            bad_count: 2048,
        }
    }
}

type Verdict = Result<Token, TokenFault>;
type Digest = [u8; 32];

/// Asks an API server about tokens.
pub struct Reviewer {
    client: Client,
    audience: String,
    limits: Limits,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer").field("audience", &self.audience).field("limits", &self.limits).finish()
    }
}

#[derive(Default)]
struct State {
    /// By digest of the token; dropped reviews leave an empty hull that the next caller replaces.
    under_way: HashMap<Digest, WeakShared<BoxFuture<'static, Verdict>>>,
    by_address: BTreeMap<Option<IpAddr>, usize>,
    good: Kept,
    bad: Kept,
}

/// Verdicts, in the order in which they came.
#[derive(Default)]
struct Kept {
    verdicts: HashMap<Digest, (Verdict, Instant)>,
    order: VecDeque<Digest>,
}

impl Kept {
    fn get(&self, digest: &Digest, now: Instant) -> Option<Verdict> {
        self.verdicts.get(digest).filter(|(_, until)| now < *until).map(|(verdict, _)| verdict.clone())
    }

    fn put(&mut self, digest: Digest, verdict: Verdict, until: Instant, max: usize) {
        if self.verdicts.insert(digest, (verdict, until)).is_none() {
            self.order.push_back(digest);
        }
        while self.order.len() > max {
            if let Some(oldest) = self.order.pop_front() {
                self.verdicts.remove(&oldest);
            }
        }
    }

    /// Forgets what is over, as far as it came first.
    fn purge(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            if self.verdicts.get(oldest).is_some_and(|(_, until)| now < *until) {
                return;
            }
            self.verdicts.remove(oldest);
            self.order.pop_front();
        }
    }
}

/// The right to have a review under way; given back when dropped.
struct Slot {
    state: Arc<Mutex<State>>,
    source: Option<IpAddr>,
    digest: Digest,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(count) = state.by_address.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.source);
            }
        }
        state.under_way.remove(&self.digest);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reviewer {
    /// Asks through `client` for tokens with `audience`.
    pub fn new(client: Client, audience: String, limits: Limits) -> Self {
        Self { client, audience, limits, state: Arc::default() }
    }

    /// The verdict about a token that came from `source`, at `now` since 1970.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub(super) async fn verify(&self, token: &str, source: Option<IpAddr>, now: Duration) -> Verdict {
        if token.is_empty() {
            return Err(TokenFault::Missing);
        }
        let verdict = match self.known_or_asked(token, source)? {
            Asked::Known(verdict) => verdict,
            Asked::Review(review) => review.await,
        };
        let token = verdict?;
        if token.expires <= now {
            return Err(TokenFault::Expired { ago: now.saturating_sub(token.expires) });
        }
        Ok(token)
    }

    fn known_or_asked(&self, token: &str, source: Option<IpAddr>) -> Result<Asked, TokenFault> {
        let mut key = Digest::default();
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let now = clock::monotonic();
        let mut state = lock(&self.state);
        if let Some(verdict) = state.good.get(&key, now).or_else(|| state.bad.get(&key, now)) {
            metrics::counter!("ambit_token_reviews_saved_total").increment(1);
            return Ok(Asked::Known(verdict));
        }
        if let Some(review) = state.under_way.get(&key).and_then(WeakShared::upgrade) {
            return Ok(Asked::Review(review));
        }
        state.good.purge(now);
        state.bad.purge(now);
        let all: usize = state.by_address.values().sum();
        let mine = state.by_address.get(&source).copied().unwrap_or_default();
        if mine >= self.limits.reviews_of_address {
            return Err(TokenFault::Busy { count: mine, of: "all from this address" });
        }
        if all >= self.limits.reviews {
            return Err(TokenFault::Busy { count: all, of: "from all addresses" });
        }
        state.by_address.insert(source, mine + 1);
        let slot = Slot { state: self.state.clone(), source, digest: key };
        let review = self.review(token.to_owned(), slot).boxed().shared();
        if let Some(weak) = review.downgrade() {
            state.under_way.insert(key, weak);
        }
        metrics::counter!("ambit_token_reviews_total").increment(1);
        Ok(Asked::Review(review))
    }

    /// Asks, and keeps the verdict.
    fn review(&self, token: String, slot: Slot) -> impl Future<Output = Verdict> + Send + use<> {
        let api = Api::<TokenReview>::all(self.client.clone());
        let (audience, limits) = (self.audience.clone(), self.limits.clone());
        async move {
            let asked = TokenReview {
                spec: TokenReviewSpec { audiences: Some(vec![audience.clone()]), token: Some(token.clone()) },
                ..TokenReview::default()
            };
            let post = PostParams::default();
            let answer = tokio::time::timeout(limits.timeout, api.create(&post, &asked)).await;
            let verdict = match answer {
                Err(_) => {
                    Err(unreviewed(format!("the API server did not answer within {:?}", limits.timeout)))
                }
                Ok(Err(error)) => Err(unreviewed(cause(&error))),
                Ok(Ok(review)) => judge(&audience, review.status.unwrap_or_default(), &token),
            };
            keep(&slot, &limits, &verdict);
            verdict
        }
    }
}

enum Asked {
    Known(Verdict),
    Review(Shared<BoxFuture<'static, Verdict>>),
}

fn unreviewed(why: String) -> TokenFault {
    TokenFault::Unreviewed { why }
}

/// Why the server did not answer, without any of what was sent: an answer may repeat the token.
fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::SerdeError(_) => "the API server's answer cannot be read".to_owned(),
        kube::Error::Service(cause) => format!("the API server cannot be reached: {cause}"),
        kube::Error::HyperError(cause) => format!("the API server cannot be reached: {cause}"),
        kube::Error::Auth(cause) => format!("we cannot identify ourselves to the API server: {cause}"),
        _ => "the API server cannot be asked".to_owned(),
    }
}

fn keep(slot: &Slot, limits: &Limits, verdict: &Verdict) {
    let now = clock::monotonic();
    let wall = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut state = lock(&slot.state);
    match verdict {
        Ok(token) => {
            let left = token.expires.saturating_sub(wall);
            let until = now + limits.good.min(left);
            state.bad.verdicts.remove(&slot.digest);
            state.good.put(slot.digest, verdict.clone(), until, limits.good_count);
        }
        Err(fault) => {
            let life = match fault {
                TokenFault::Unreviewed { .. } => limits.away,
                _ => limits.bad,
            };
            state.bad.put(slot.digest, verdict.clone(), now + life, limits.bad_count);
        }
    }
}

/// What the server's answer makes of a token.
fn judge(audience: &str, status: TokenReviewStatus, token: &str) -> Verdict {
    let said = shortened(status.error.unwrap_or_default(), token);
    if status.authenticated != Some(true) {
        let said = if said.is_empty() { "it says not why".to_owned() } else { said };
        return Err(TokenFault::NotAuthenticated { said });
    }
    // A server that knows no audiences leaves them out, and would vouch for a token meant for anybody.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|one| one == audience) {
        return Err(TokenFault::Audience { found: audiences });
    }
    let user = status.user.unwrap_or_default();
    let bound = Bound::of(&user)?;
    let name = user.username.unwrap_or_default();
    let (namespace, account) = match name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'))
    {
        Some((namespace, account))
            if !namespace.is_empty()
                && !account.is_empty()
                && !account.contains(':')
                && user.groups.iter().flatten().any(|group| group == ACCOUNTS) =>
        {
            (Str::from(namespace), Str::from(account))
        }
        Some(_) | None => return Err(TokenFault::Subject { found: name }),
    };
    if bound.pod.is_empty() || bound.pod_uid.is_empty() {
        return Err(TokenFault::Unbound);
    }
    Ok(Token {
        namespace,
        service_account: account,
        node: bound.node,
        node_uid: bound.node_uid,
        pod: bound.pod,
        pod_uid: bound.pod_uid,
        expires: expiry(token)?,
    })
}

/// Words of the server, cut, and never with the token in them.
fn shortened(said: String, token: &str) -> String {
    let said = said.replace(token, "…");
    let mut end = said.len().min(SAID_BYTES_MAX);
    while !said.is_char_boundary(end) {
        end -= 1;
    }
    said[..end].to_owned()
}

/// What a token is bound to; empty where it is not.
struct Bound {
    pod: Str,
    pod_uid: Str,
    node: Str,
    node_uid: Str,
}

impl Bound {
    fn of(user: &UserInfo) -> Result<Self, TokenFault> {
        let one = |name: &str| {
            let values = user.extra.iter().flatten().find(|(key, _)| key.strip_prefix(BOUND) == Some(name));
            match values.map(|(_, values)| values.as_slice()) {
                None | Some([]) => Ok(Str::from("")),
                Some([value]) => Ok(Str::from(value.as_str())),
                Some(several) => {
                    let what = format!("it has {} values of {name}", several.len());
                    Err(TokenFault::Malformed { what })
                }
            }
        };
        Ok(Self {
            pod: one("pod-name")?,
            pod_uid: one("pod-uid")?,
            node: one("node-name")?,
            node_uid: one("node-uid")?,
        })
    }
}

/// When a token runs out by its own words; to be read only of one that was vouched for.
fn expiry(token: &str) -> Result<Duration, TokenFault> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let malformed = |what: &str| TokenFault::Malformed { what: what.to_owned() };
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("it is no JWT"));
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed("its claims are no base64url"))?;
    let claims: Claims =
        serde_json::from_slice(&payload).map_err(|_| malformed("its claims say not when it runs out"))?;
    Ok(Duration::from_secs(claims.exp))
}
