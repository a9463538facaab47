//! What the lab's store says of an API server's objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_manifest::{Kind, Located, ObjectKey};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Mirror, Outcome, What};
use crate::store::Snapshot;

struct Seen {
    mirror: Mirror,
    current: watch::Receiver<Arc<Snapshot>>,
}

fn key() -> ObjectKey {
    ObjectKey::new(Kind::Pod, Some("shop"), "cart")
}

fn pod(uid: &str, version: u64, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": "cart", "uid": uid, "resourceVersion": version.to_string(),
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]}, "status": {"phase": phase},
    })
}

fn located(value: Value) -> Located {
    ambit_kube::served::read(value).expect("a pod as it is served")
}

impl Seen {
    fn new() -> Self {
        let (current, seen) = watch::channel(Arc::new(Snapshot::default()));
        let mirror = Mirror::new(current, BTreeSet::from([Kind::Pod]));
        let seen = Self { mirror, current: seen };
        seen.mirror.take_in(vec![located(pod("a", 5, "Pending"))], Vec::new(), Some(5));
        seen
    }

    fn phase(&self) -> Option<String> {
        let snapshot = self.current.borrow().clone();
        Some(snapshot.find(&key())?.pointer("/status/phase")?.as_str()?.to_owned())
    }

    fn run(&self, phase: &'static str) {
        self.mirror.change(&key(), |pod| pod["status"]["phase"] = json!(phase));
    }
}

#[test]
fn a_write_is_in_force_at_once_and_stays_so_until_it_is_answered() {
    let seen = Seen::new();
    seen.run("Running");
    assert_eq!(seen.phase().as_deref(), Some("Running"));
    // What the server says meanwhile knows nothing of the write yet.
    seen.mirror.take_in(vec![located(pod("a", 6, "Pending"))], Vec::new(), Some(6));
    assert_eq!(seen.phase().as_deref(), Some("Running"));
    let job = seen.mirror.next_job().expect("something to send");
    assert!(matches!(&job.what, What::Patch(patch) if *patch == json!({"status": {"phase": "Running"}})));
    assert!(seen.mirror.next_job().is_none(), "one task an object");
    assert!(seen.mirror.finish(&job, Outcome::Now(pod("a", 7, "Running"))).is_none());
    assert_eq!(seen.phase().as_deref(), Some("Running"));
    assert_eq!(seen.current.borrow().revision, 7);
    // An older state is not shown after a newer one.
    seen.mirror.take_in(vec![located(pod("a", 6, "Pending"))], Vec::new(), Some(6));
    assert_eq!(seen.phase().as_deref(), Some("Running"));
}

#[test]
fn what_is_written_during_a_request_is_sent_after_it() {
    let seen = Seen::new();
    seen.run("Running");
    let job = seen.mirror.next_job().expect("something to send");
    seen.run("Failed");
    let next = seen.mirror.finish(&job, Outcome::Now(pod("a", 6, "Running"))).expect("more to send");
    assert!(matches!(&next.what, What::Patch(patch) if *patch == json!({"status": {"phase": "Failed"}})));
    assert_eq!(seen.phase().as_deref(), Some("Failed"));
}

#[test]
fn what_the_server_refuses_is_dropped() {
    let seen = Seen::new();
    seen.run("Running");
    let job = seen.mirror.next_job().expect("something to send");
    assert!(seen.mirror.finish(&job, Outcome::Dropped).is_none());
    assert_eq!(seen.phase().as_deref(), Some("Pending"));
    // And not sent again in a circle.
    seen.run("Running");
    assert!(seen.mirror.next_job().is_none());
}

#[test]
fn a_removed_object_is_hidden_and_no_late_answer_brings_it_back() {
    let seen = Seen::new();
    seen.mirror.remove(&key());
    assert_eq!(seen.phase(), None);
    let job = seen.mirror.next_job().expect("something to send");
    assert!(matches!(job.what, What::Remove));
    assert!(seen.mirror.finish(&job, Outcome::Done).is_none());
    seen.mirror.take_in(vec![located(pod("a", 6, "Pending"))], Vec::new(), Some(6));
    assert_eq!(seen.phase(), None);
    seen.mirror.take_in(Vec::new(), vec![key()], Some(8));
    seen.mirror.take_answer(pod("a", 7, "Running"));
    assert_eq!(seen.phase(), None);
    // Another one of the name is another one.
    seen.mirror.take_in(vec![located(pod("b", 9, "Pending"))], Vec::new(), Some(9));
    assert_eq!(seen.phase().as_deref(), Some("Pending"));
}

#[test]
fn a_write_meant_for_one_pod_does_not_reach_the_next() {
    let seen = Seen::new();
    seen.run("Running");
    seen.mirror.take_in(vec![located(pod("b", 9, "Pending"))], Vec::new(), Some(9));
    assert_eq!(seen.phase().as_deref(), Some("Pending"));
    assert!(seen.mirror.next_job().is_none());
}
