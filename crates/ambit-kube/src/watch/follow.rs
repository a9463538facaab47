//! One kind: finds out whether it is served, lists it, watches it, and lists it again when the server has forgotten
//! where we were.
//!
//! A listing is a watch that begins with everything there is, where the server can do that; else it is read in pages.
//! What comes of an object is decided by the caller's function, here, so that the kinds are read side by side.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ambit_manifest::{Kind, Located, ObjectKey, Problem};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::collect::Note;
use super::discover;
use super::object::Served;
use super::seen::{self, Seen};
use super::slim::{SlimNode, SlimPod};
use super::{Form, Selection};
use crate::error::{Call, KubeError};
use crate::resource::Resource;
use crate::write;

/// How long one watch lasts at least before the server ends it, in seconds.
const WATCH_SECONDS: u32 = 290;
/// Longest silence of a watch. Servers send a bookmark every minute; a connection that is silent for longer may be dead,
/// and asking again from where we were costs little.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Longest wait until a watch begins: less than for other calls, since nothing has to be gathered for it.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// A watch that has kept quiet for so long since it began is told as well again: a server that cannot go on says so at
/// once. That it can is proven only by an event or by an orderly end.
const CALM: Duration = Duration::from_secs(3);
/// Longest silence before a listing by watch is complete; a server that does not know such listings never completes one.
const LISTING_SILENCE_MAX: Duration = Duration::from_secs(20);
/// Objects of a page where a listing is read in pages.
const PAGE: u32 = 500;
/// Pause between two questions whether a kind is served by now.
const NOT_SERVED_PAUSE: Duration = Duration::from_secs(5);
/// How often a kind must be found not served in a row until that is believed, and the pause between: an API server that
/// has just started does not know its CRDs for a moment, and a policy that is not known allows what it denies.
const ABSENCES: u32 = 3;
/// The same where objects would be gone with the kind.
const ABSENCES_OF_SEEN: u32 = 20;
const ABSENCE_PAUSE: Duration = Duration::from_millis(500);
/// Refusals in a row after which everything is listed anew.
const RELIST_AFTER: u32 = 5;
/// HTTP statuses that say nothing of where we were: we may not, or the server has too much to do or only just starts.
const NO_WORD_ON_VERSION: [u16; 4] = [401, 403, 429, 503];
/// A server that says it has too much to do is left alone for so many times the usual pause.
const CROWDED: u32 = 2;
/// Annotation of the bookmark that ends a listing by watch.
const LISTED: &str = "k8s.io/initial-events-end";

/// What the caller makes of an object.
pub(super) type Make<T> = Arc<dyn Fn(Located) -> Result<T, Vec<Problem>> + Send + Sync>;

/// Where one kind's news go.
pub(super) struct Outlet<T> {
    /// Which selection it is.
    pub(super) index: usize,
    pub(super) notes: mpsc::Sender<Note<T>>,
    pub(super) make: Make<T>,
}

/// Why one stretch of following ended.
enum Stop {
    /// Nobody listens any more.
    Over,
    /// The server has forgotten the version from which we wanted to go on.
    Expired,
    /// The kind is not served.
    NotServed,
    /// The server cannot list by watch.
    NoStreaming,
    Failed(KubeError),
}

impl From<KubeError> for Stop {
    fn from(error: KubeError) -> Self {
        match error.status() {
            Some(404) => Self::NotServed,
            Some(410) => Self::Expired,
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// Follows a kind until nobody listens any more.
pub(super) async fn follow<T: Send + 'static>(
    client: Client,
    selection: Selection,
    form: Form,
    outlet: Outlet<T>,
) {
    let over = outlet.notes.clone();
    let work = async {
        match (form, selection.kind) {
            (Form::Whole, _) => run::<Value, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Pod) => run::<SlimPod, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Node) => run::<SlimNode, T>(client, selection, outlet).await,
            (Form::Lean, Kind::ConfigMap) => run::<ConfigMap, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Deployment) => run::<Deployment, T>(client, selection, outlet).await,
            (Form::Lean, Kind::EndpointSlice) => run::<EndpointSlice, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Namespace) => run::<Namespace, T>(client, selection, outlet).await,
            (Form::Lean, Kind::NetworkPolicy) => run::<NetworkPolicy, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Secret) => run::<Secret, T>(client, selection, outlet).await,
            (Form::Lean, Kind::Service) => run::<Service, T>(client, selection, outlet).await,
            (Form::Lean, Kind::ServiceAccount) => run::<ServiceAccount, T>(client, selection, outlet).await,
            (
                Form::Lean,
                Kind::PeerAuthentication
                | Kind::AuthorizationPolicy
                | Kind::RequestAuthentication
                | Kind::ServiceEntry
                | Kind::WorkloadEntry
                | Kind::GatewayClass
                | Kind::Gateway
                | Kind::HTTPRoute
                | Kind::GRPCRoute
                | Kind::TCPRoute
                | Kind::TLSRoute
                | Kind::ReferenceGrant
                | Kind::TrafficPolicy
                | Kind::EgressPolicy
                | Kind::VirtualService,
            ) => run::<Value, T>(client, selection, outlet).await,
        }
    };
    tokio::select! {
        () = work => {}
        () = over.closed() => {}
    }
}

async fn run<K: Served, T: Send + 'static>(client: Client, selection: Selection, outlet: Outlet<T>) {
    let mut follower = Follower {
        client,
        selection,
        outlet,
        seen: Seen::default(),
        from: None,
        streams: true,
        failures: 0,
        is_lost: false,
        backoff: Backoff::default(),
    };
    let mut absences = 0_u32;
    loop {
        let stop = match discover::served(&follower.client, follower.selection.kind).await {
            Ok(Some(resource)) => {
                absences = 0;
                follower.served::<K>(resource).await
            }
            Ok(None) => {
                absences = absences.saturating_add(1);
                follower.not_served(absences).await
            }
            Err(cause) => Err(Stop::Failed(cause)),
        };
        match stop {
            Err(Stop::Over) => return,
            Err(Stop::Failed(cause)) => {
                if follower.failed(&cause).await.is_err() {
                    return;
                }
            }
            Ok(()) | Err(Stop::Expired | Stop::NotServed | Stop::NoStreaming) => {}
        }
    }
}

struct Follower<T> {
    client: Client,
    selection: Selection,
    outlet: Outlet<T>,
    seen: Seen,
    /// The version after which we go on; none before a listing is complete.
    from: Option<String>,
    /// Whether the server lists by watch, as far as we know.
    streams: bool,
    /// Failures since something last went well.
    failures: u32,
    /// Whether it was told that the kind cannot be followed.
    is_lost: bool,
    backoff: Backoff,
}

impl<T: Send + 'static> Follower<T> {
    /// Lists and watches until the kind is no longer served.
    async fn served<K: Served>(&mut self, resource: Resource) -> Result<(), Stop> {
        loop {
            match self.stretch::<K>(&resource).await {
                Ok(()) => {}
                Err(Stop::Expired) => {
                    debug!(kind = %resource.kind, "the server has forgotten where we were; listing anew");
                    self.from = None;
                }
                Err(Stop::NoStreaming) => {
                    debug!(kind = %resource.kind, "the server does not list by watch; reading pages");
                    self.streams = false;
                    continue;
                }
                Err(Stop::NotServed) => {
                    self.from = None;
                    sleep(self.backoff.next()).await;
                    return Ok(());
                }
                Err(Stop::Failed(cause)) => {
                    self.failed(&cause).await?;
                    continue;
                }
                Err(Stop::Over) => return Err(Stop::Over),
            }
            sleep(self.backoff.next()).await;
        }
    }

    /// One connection: a listing if there is none yet, then changes until the server ends it.
    async fn stretch<K: Served>(&mut self, resource: &Resource) -> Result<(), Stop> {
        if self.from.is_none() && !self.streams {
            self.pages::<K>(resource).await?;
        }
        let mut listing = self.from.is_none();
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(self.watch_seconds()),
            bookmarks: true,
            send_initial_events: listing,
        };
        let call = self.call("watch", resource);
        let request = self.request(resource).watch(&params, self.from.as_deref().unwrap_or("0"));
        let request = request.map_err(|cause| KubeError::of(&call, kube::Error::BuildRequest(cause)))?;
        let opened = answer(&call, self.client.request_events::<K>(request)).await;
        let stream = opened.map_err(|error| refused(error, listing))?;
        let mut stream = std::pin::pin!(stream);
        if listing {
            self.seen.begin();
        }
        // Not well by being opened: a server may open every watch and fail each one in its first event.
        let mut calm = listing;
        loop {
            let silence = match (listing, calm) {
                (true, _) => LISTING_SILENCE_MAX,
                (false, true) => SILENCE_MAX,
                (false, false) => CALM,
            };
            match timeout(silence, stream.next()).await {
                Err(_) if listing => return Err(Stop::NoStreaming),
                Err(_) if !calm => {
                    calm = true;
                    self.found_again().await?;
                }
                Err(_) | Ok(None) if !listing => return self.well().await,
                Err(_) | Ok(None) => return Err(self.broken(resource, "the listing broke off")),
                Ok(Some(Ok(event))) => {
                    listing = self.event(resource, event, listing).await?;
                    if !listing {
                        calm = true;
                        self.well().await?;
                    }
                }
                Ok(Some(Err(kube::Error::SerdeError(cause)))) => self.unread(&cause.to_string()).await?,
                Ok(Some(Err(cause))) => return Err(refused(KubeError::of(&call, cause), listing)),
            }
        }
    }

    /// Takes in an event; whether the listing still goes on.
    async fn event<K: Served>(
        &mut self,
        resource: &Resource,
        event: WatchEvent<K>,
        listing: bool,
    ) -> Result<bool, Stop> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = object.names().2.to_owned();
                self.put(resource, object).await?;
                self.reached(listing, version);
                Ok(listing)
            }
            WatchEvent::Deleted(object) => {
                let (namespace, name, version) = object.names();
                let (namespace, name, version) = (namespace.to_owned(), name.to_owned(), version.to_owned());
                if self.seen.forget(&namespace, &name) {
                    self.gone(&namespace, &name, seen::number(&version).unwrap_or_default()).await?;
                }
                self.reached(listing, version);
                Ok(listing)
            }
            WatchEvent::Bookmark(bookmark) => {
                let complete = listing && bookmark.metadata.annotations.contains_key(LISTED);
                let version = bookmark.metadata.resource_version;
                if complete {
                    self.listed(version).await?;
                } else {
                    self.reached(listing, version);
                }
                Ok(listing && !complete)
            }
            WatchEvent::Error(status) => {
                let call = Box::new(self.call("watch", resource));
                Err(KubeError::of_status(call, status.code, status.message).into())
            }
        }
    }

    /// Reads everything in pages.
    async fn pages<K: Served>(&mut self, resource: &Resource) -> Result<(), Stop> {
        let call = self.call("list", resource);
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector.clone_from(&self.selection.labels);
        params.field_selector.clone_from(&self.selection.fields);
        self.seen.begin();
        loop {
            let request = self.request(resource).list(&params);
            let page: Page<K> = write::send(&self.client, &call, request).await?;
            for object in page.items.into_iter().flatten() {
                self.put(resource, object).await?;
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => return self.listed(page.metadata.resource_version.unwrap_or_default()).await,
            }
        }
    }

    async fn put<K: Served>(&mut self, resource: &Resource, object: K) -> Result<(), Stop> {
        let (namespace, name, version) = object.names();
        if name.is_empty() {
            return self.unread("an object without a name").await;
        }
        let revision = seen::number(version).unwrap_or_default();
        if !self.seen.see(namespace, name, seen::mark(version)) {
            return Ok(());
        }
        let key = self.key(namespace, name);
        let made = object.read(resource).and_then(|located| (self.outlet.make)(located));
        self.note(Note::Put { key, made, revision }).await
    }

    async fn gone(&self, namespace: &str, name: &str, revision: u64) -> Result<(), Stop> {
        self.note(Note::Gone { key: self.key(namespace, name), revision }).await
    }

    /// The listing is complete up to this version.
    async fn listed(&mut self, version: String) -> Result<(), Stop> {
        for (namespace, name) in self.seen.finish() {
            self.gone(&namespace, &name, 0).await?;
        }
        let revision = seen::number(&version).unwrap_or_default();
        self.from = Some(version).filter(|version| !version.is_empty());
        self.note(Note::Listed { index: self.outlet.index, revision }).await?;
        self.well().await
    }

    /// Changes up to this version are taken in.
    fn reached(&mut self, listing: bool, version: String) {
        self.backoff.reset();
        if !listing && !version.is_empty() {
            self.from = Some(version);
        }
    }

    /// The kind is not served: nothing to wait for at the start; what was there before is gone once that is certain.
    async fn not_served(&mut self, absences: u32) -> Result<(), Stop> {
        let certain = if self.seen.is_empty() { ABSENCES } else { ABSENCES_OF_SEEN };
        if absences < certain {
            sleep(ABSENCE_PAUSE).await;
            return Ok(());
        }
        if absences == certain {
            info!(kind = %self.selection.kind, "the kind is not served; its CRD is waited for");
        }
        self.seen.begin();
        self.listed(String::new()).await?;
        sleep(NOT_SERVED_PAUSE).await;
        Ok(())
    }

    /// All is well, as far as it was not.
    async fn well(&mut self) -> Result<(), Stop> {
        self.backoff.reset();
        self.failures = 0;
        self.found_again().await
    }

    /// Takes back that the kind cannot be followed. Failures go on being counted: it is not proven yet.
    async fn found_again(&mut self) -> Result<(), Stop> {
        if !std::mem::take(&mut self.is_lost) {
            return Ok(());
        }
        info!(kind = %self.selection.kind, "followed again");
        self.note(Note::Well { index: self.outlet.index }).await
    }

    /// Tells of a failure and waits. The first one is not told: a watch that breaks is taken up again at once.
    async fn failed(&mut self, cause: &KubeError) -> Result<(), Stop> {
        self.failures = self.failures.saturating_add(1);
        // A server that answers, but never with this: perhaps it was restored to an older state than we have seen.
        let may_be_of_version = cause.status().is_some_and(|status| !NO_WORD_ON_VERSION.contains(&status));
        if may_be_of_version && self.failures.is_multiple_of(RELIST_AFTER) {
            self.from = None;
        }
        if self.failures == 2 {
            warn!(kind = %self.selection.kind, %cause, "cannot be followed; the last state stays in force");
        }
        if self.failures >= 2 {
            self.is_lost = true;
            let (index, words) = (self.outlet.index, cause.to_string());
            self.note(Note::Lost { index, words }).await?;
        }
        let pause = self.backoff.next();
        sleep(if cause.status() == Some(429) { pause * CROWDED } else { pause }).await;
        Ok(())
    }

    async fn unread(&self, cause: &str) -> Result<(), Stop> {
        let (index, words) = (self.outlet.index, cause.to_owned());
        self.note(Note::Unread { index, words }).await
    }

    fn note(&self, note: Note<T>) -> impl Future<Output = Result<(), Stop>> + use<'_, T> {
        let sending = self.outlet.notes.send(note);
        async move { sending.await.map_err(|_| Stop::Over) }
    }

    /// Kinds differ, so that not all watches end at once.
    fn watch_seconds(&self) -> u32 {
        WATCH_SECONDS + u32::try_from(self.outlet.index % 16).unwrap_or_default() * 5
    }

    fn broken(&self, resource: &Resource, cause: &str) -> Stop {
        let call = Box::new(self.call("watch", resource));
        Stop::Failed(KubeError::Unreachable { call, cause: cause.to_owned() })
    }

    fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(self.selection.kind, Some(namespace).filter(|n| !n.is_empty()), name)
    }

    fn call(&self, verb: &'static str, resource: &Resource) -> Call {
        Call::new(verb, resource, self.selection.namespace.as_deref(), None)
    }

    fn request(&self, resource: &Resource) -> Request {
        Request::new(resource.path(self.selection.namespace.as_deref()))
    }
}

/// Some servers refuse a watch that begins with everything: then pages are read.
fn refused(error: KubeError, listing: bool) -> Stop {
    match error.status() {
        Some(400 | 405 | 422) if listing => Stop::NoStreaming,
        Some(_) | None => error.into(),
    }
}

/// Waits for an answer to begin, not for ever.
async fn answer<A>(call: &Call, asked: impl Future<Output = kube::Result<A>>) -> Result<A, KubeError> {
    match timeout(OPEN_MAX, asked).await {
        Ok(answered) => answered.map_err(|cause| KubeError::of(call, cause)),
        Err(_) => Err(KubeError::TimedOut { call: Box::new(call.clone()), after: OPEN_MAX }),
    }
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<K>>,
}
