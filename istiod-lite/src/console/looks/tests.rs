//! What a look tells, to whom, and how often anybody looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{broadcast, mpsc};

use super::*;
use crate::console::{Answers, Coverage, Later, Records};

/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Proxies that tell of one pair, which is another at every look; or of none.
#[derive(Debug, Default)]
pub(in crate::console) struct Counting {
    looks: AtomicU64,
    is_silent: bool,
}

impl Counting {
    /// Nobody tells anything.
    pub(in crate::console) fn silent() -> Arc<dyn Gathered> {
        Arc::new(Self { is_silent: true, ..Self::default() })
    }
}

impl Gathered for Counting {
    fn edges(&self, _: Duration) -> Vec<Value> {
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_silent { Vec::new() } else { vec![json!({ "id": "a", "look": look })] }
    }

    fn reported(&self, window: Duration) -> Vec<Value> {
        self.edges(window)
    }

    fn seen(&self, _: Duration) -> Vec<ambit_explain::Flow> {
        Vec::new()
    }

    fn coverage(&self) -> Coverage {
        Coverage::default()
    }

    fn incidents(&self) -> Vec<Value> {
        Vec::new()
    }

    fn attached(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn self_tests(&self) -> Later<BTreeMap<String, Value>> {
        Box::pin(std::future::ready(BTreeMap::new()))
    }

    fn certificates(&self, _: Option<String>, _: Option<String>) -> Later<Answers> {
        Box::pin(std::future::ready(Answers::new()))
    }

    fn connections(&self, _: String, _: u32) -> Later<Answers> {
        Box::pin(std::future::ready(Answers::new()))
    }

    fn budget(&self, _: String) -> Later<Answers> {
        Box::pin(std::future::ready(Answers::new()))
    }

    fn flows(&self, _: BTreeMap<String, String>, _: usize) -> Later<Records> {
        Box::pin(std::future::ready(Records::default()))
    }

    fn follow(&self, _: BTreeMap<String, String>) -> mpsc::Receiver<Value> {
        mpsc::channel(1).1
    }

    fn refusals(&self) -> broadcast::Receiver<Arc<str>> {
        broadcast::channel(1).1
    }
}

fn told(event: Option<Bytes>) -> Option<Value> {
    let event = event?;
    let text = std::str::from_utf8(&event).unwrap();
    let data = text.strip_prefix("event: edges\ndata: ").expect("an event of edges");
    let data = data.strip_suffix("\n\n").expect("the end of an event");
    assert!(!data.contains('\n'), "{data}");
    Some(serde_json::from_str(data).unwrap())
}

fn of(items: &[&Value], removed: &[&str]) -> Option<Value> {
    Some(json!({ "items": items, "left_out": 0, "removed": removed }))
}

#[test]
fn a_look_tells_each_what_it_does_not_know() {
    let (a, b) = (json!({"id": "a", "denied": 0}), json!({"id": "b\n", "denied": 0}));
    let refused = json!({"id": "b\n", "denied": 1});
    let none = Look::default();
    let first = Look::after(&none, vec![a.clone(), b.clone()]).expect("everything is new");
    assert_eq!(told(first.since(&none)), of(&[&a, &b], &[]));
    assert!(Look::after(&first, vec![a.clone(), b.clone()]).is_none(), "nothing changed");
    let second = Look::after(&first, vec![a.clone(), refused.clone()]).unwrap();
    assert_eq!(told(second.since(&first)), of(&[&refused], &[]));
    assert_eq!(told(second.since(&none)), of(&[&a, &refused], &[]), "who is new is told everything");
    assert_eq!(told(second.since(&second)), None);
    let third = Look::after(&second, vec![refused.clone()]).unwrap();
    assert_eq!(told(third.since(&second)), of(&[], &["a"]));
    assert_eq!(told(third.since(&first)), of(&[&refused], &["a"]), "who missed one is told both");
    let empty = third.emptied();
    assert_eq!(told(empty.since(&none)), None);
    let again = Look::after(&empty, vec![a.clone()]).unwrap();
    assert_eq!(told(again.since(&none)), of(&[&a], &[]));
}

#[test]
fn what_does_not_fit_is_left_out_and_counted_the_oldest_first() {
    let edge = |id: u32, last_seen: &str| json!({ "id": id.to_string(), "last_seen": last_seen });
    let all = vec![edge(1, "2"), edge(2, "1"), edge(3, "3"), edge(4, "2")];
    let one = all[0].to_string().len() + 1;
    for (bytes_max, kept) in [
        (4 * one, vec!["1", "2", "3", "4"]),
        (4 * one - 1, vec!["1", "3", "4"]),
        (2 * one, vec!["1", "3"]),
        (one, vec!["3"]),
        (0, vec![]),
    ] {
        let mut edges = all.clone();
        let left_out = newest_within(&mut edges, bytes_max);
        let ids: Vec<&str> = edges.iter().filter_map(|edge| edge["id"].as_str()).collect();
        assert_eq!((ids, left_out), (kept.clone(), 4 - kept.len()), "{bytes_max} bytes");
    }
}

#[tokio::test]
async fn however_many_read_there_is_one_look_and_all_get_the_same_bytes() {
    const READERS: usize = 20;
    let counting = Arc::new(Counting::default());
    let gathered: Arc<dyn Gathered> = counting.clone();
    let looks = Looks::default();
    let mut readers: Vec<Following> = (0..READERS).map(|_| looks.follow(&gathered)).collect();
    let mut last = Vec::new();
    for _ in 0..2 {
        last.clear();
        for reader in &mut readers {
            let event = time::timeout(PATIENCE, reader.next()).await.expect("in time");
            last.push(event.expect("looks go on"));
        }
    }
    // Each look saw something new, so that its number says how many there were.
    let seen = looks.inner.newest.borrow().number;
    assert!(seen >= 2 && counting.looks.load(Ordering::SeqCst) <= seen + 1, "{seen} looks: {counting:?}");
    let is_shared = |event: &&Bytes| event.as_ptr() == last[0].as_ptr();
    assert_eq!(last.iter().filter(is_shared).count(), READERS, "each has bytes of its own");
}

#[tokio::test]
async fn nobody_looks_while_nobody_reads_and_whoever_comes_then_is_told() {
    let counting = Arc::new(Counting::default());
    let gathered: Arc<dyn Gathered> = counting.clone();
    let looks = Looks::default();
    let mut one = looks.follow(&gathered);
    assert!(told(one.next().await).is_some());
    drop(one);
    let over = async {
        while *looks.is_looking() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, over).await.expect("it goes on looking");
    assert!(looks.inner.newest.borrow().edges.is_empty(), "what nobody reads is held");
    let before = counting.looks.load(Ordering::SeqCst);
    let mut other = looks.follow(&gathered);
    let event = time::timeout(PATIENCE, other.next()).await.expect("in time");
    assert_eq!(told(event).unwrap()["items"][0]["look"], before + 1);
}
