//! Two candidates and a lease, on a clock that only we move.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_runtime::drain::Drain;
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Election, LEASE, RENEW_MAX, RETRY};
use crate::testing::{Asked, Reply, client};

/// One lease on a server, with optimistic locking.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<(u64, Value)>>>,
}

impl Server {
    fn answer(&self, asked: Asked) -> Reply {
        let mut lease = self.lease.lock().unwrap();
        let stored = |version: u64, mut body: Value| {
            body["metadata"]["resourceVersion"] = json!(version.to_string());
            (version, body)
        };
        match (asked.method, lease.as_ref()) {
            (Method::GET, Some((_, body))) => Reply::Json(200, body.clone()),
            (Method::POST, None) => {
                *lease = Some(stored(1, asked.body.clone()));
                Reply::Json(201, asked.body)
            }
            (Method::POST, Some(_)) => Reply::status(409, "AlreadyExists"),
            (Method::PUT, Some((version, _))) => {
                if asked.body["metadata"]["resourceVersion"] != json!(version.to_string()) {
                    return Reply::status(409, "Conflict");
                }
                *lease = Some(stored(version + 1, asked.body.clone()));
                Reply::Json(200, asked.body)
            }
            _ => Reply::status(404, "NotFound"),
        }
    }

    /// A client that is cut off while `cut` is set; what it sends then is never answered.
    fn client(&self, cut: &Arc<AtomicBool>) -> Client {
        let (server, cut) = (self.clone(), cut.clone());
        client(move |asked| if cut.load(Ordering::SeqCst) { Reply::Never } else { server.answer(asked) })
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        let holder = lease.as_ref().and_then(|(_, body)| body["spec"]["holderIdentity"].as_str());
        holder.unwrap_or_default().to_owned()
    }
}

fn candidate(server: &Server, name: &str) -> (watch::Receiver<bool>, Arc<AtomicBool>, Drain) {
    let (cut, drain) = (Arc::new(AtomicBool::new(false)), Drain::new());
    let election = Election::new("istio-system", "istiod-lite", name);
    let leads = election.start(server.client(&cut), &drain);
    (leads, cut, drain)
}

/// Waits for `leads`, and fails if ever both lead on the way.
async fn until(leads: &watch::Receiver<bool>, other: &watch::Receiver<bool>, most: Duration) -> Duration {
    let step = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while !*leads.borrow() {
        assert!(waited <= most, "nobody took over in {most:?}");
        sleep(step).await;
        waited += step;
        assert!(!(*leads.borrow() && *other.borrow()), "two lead");
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_keeps_leading() {
    let server = Server::default();
    let (first, _, _drain) = candidate(&server, "a");
    let (_, none) = watch::channel(false);
    until(&first, &none, RETRY).await;
    let (second, _, _other) = candidate(&server, "b");
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(*first.borrow() && !*second.borrow());
    }
    assert!(server.holder().starts_with("a_"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_starts() {
    let server = Server::default();
    let (first, cut, _drain) = candidate(&server, "a");
    let (_, none) = watch::channel(false);
    until(&first, &none, RETRY).await;
    let (second, _, _other) = candidate(&server, "b");
    sleep(Duration::from_secs(20)).await;
    cut.store(true, Ordering::SeqCst);
    let waited = until(&second, &first, LEASE + 3 * RETRY).await;
    assert!(waited > RENEW_MAX, "{waited:?}");
    assert!(!*first.borrow());
    cut.store(false, Ordering::SeqCst);
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(!*first.borrow() && *second.borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nobody_the_lead() {
    let server = Server::default();
    let (first, cut, _drain) = candidate(&server, "a");
    let (_, none) = watch::channel(false);
    until(&first, &none, RETRY).await;
    sleep(Duration::from_secs(10)).await;
    cut.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(4)).await;
    cut.store(false, Ordering::SeqCst);
    for _ in 0..300 {
        sleep(Duration::from_millis(100)).await;
        assert!(*first.borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_at_once() {
    let server = Server::default();
    let (first, _, drain) = candidate(&server, "a");
    let (_, none) = watch::channel(false);
    until(&first, &none, RETRY).await;
    let (second, _, _other) = candidate(&server, "b");
    sleep(Duration::from_secs(6)).await;
    drain.begin();
    let waited = until(&second, &first, 2 * RETRY).await;
    assert!(waited <= 2 * RETRY, "{waited:?}");
    assert!(!*first.borrow());
}
