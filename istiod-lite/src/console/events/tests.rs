//! How an event is written, and what becomes of a reader that does not read.

use super::*;
use crate::console::looks::Looks;
use crate::console::looks::tests::Counting;

/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_millis(100);

/// Something that happens, and the ends by which it is made to.
struct Stage {
    refusals: broadcast::Sender<Arc<str>>,
    changed: watch::Sender<u64>,
    looks: Looks,
}

impl Stage {
    fn new(refusals: usize) -> Self {
        let (refusals, changed) = (broadcast::Sender::new(refusals), watch::Sender::new(1));
        Self { refusals, changed, looks: Looks::default() }
    }

    /// A reader of it; no proxy tells of any pair.
    fn happening(&self) -> Happening<impl Fn() -> u64 + use<>> {
        let changed = self.changed.clone();
        Happening {
            edges: self.looks.follow(&Counting::silent()),
            refusals: self.refusals.subscribe(),
            changed: self.changed.subscribe(),
            revision: move || *changed.borrow(),
        }
    }
}

#[test]
fn an_event_is_one_line_of_data_whatever_names_hold() {
    let text = event("refusal", json!({"error": "line\nbreak\r\n\nevent: forged"}));
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 4, "{text:?}");
    assert_eq!(lines[0], b"event: refusal");
    assert!(lines[1].starts_with(b"data: {") && lines[2..].iter().all(|line| line.is_empty()), "{text:?}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_given_up_and_one_that_reads_is_not() {
    let stage = Stage::new(8);
    let (send, mut events) = mpsc::channel(WAITING);
    let telling = stage.happening().tell(send, WITHIN);
    // One more than wait for it.
    for n in 0..=WAITING {
        stage.refusals.send(format!("{{\"n\":{n}}}").into()).unwrap();
    }
    time::timeout(PATIENCE, telling).await.expect("it is waited for without end");
    for n in 0..WAITING {
        assert_eq!(events.recv().await.unwrap(), event("refusal", json!({ "n": n })));
    }
    assert_eq!(events.recv().await, None);

    let (send, mut events) = mpsc::channel(WAITING);
    let telling = stage.happening().tell(send, WITHIN);
    let reading = async {
        for n in 0..10 * WAITING {
            stage.refusals.send(format!("{{\"n\":{n}}}").into()).unwrap();
            assert_eq!(events.recv().await.unwrap(), event("refusal", json!({ "n": n })));
        }
    };
    tokio::select! {
        () = telling => panic!("who reads was given up"),
        read = time::timeout(PATIENCE, reading) => read.expect("in time"),
    }
}

#[tokio::test]
async fn refusals_that_a_slow_reader_missed_are_counted_and_not_kept() {
    let stage = Stage::new(2);
    let happening = stage.happening();
    for n in 0..10 {
        stage.refusals.send(format!("{{\"n\":{n}}}").into()).unwrap();
    }
    let (send, mut events) = mpsc::channel(WAITING);
    let reading = async {
        assert_eq!(events.recv().await.unwrap(), event("lost", json!({ "refusals": 8 })));
        assert_eq!(events.recv().await.unwrap(), event("refusal", json!({ "n": 8 })));
        stage.changed.send_replace(7);
        let two = [events.recv().await.unwrap(), events.recv().await.unwrap()];
        assert!(two.contains(&event("config", json!({ "revision": 7 }))), "{two:?}");
    };
    tokio::select! {
        () = happening.tell(send, PATIENCE) => panic!("it ended first"),
        read = time::timeout(PATIENCE, reading) => read.expect("in time"),
    }
}
