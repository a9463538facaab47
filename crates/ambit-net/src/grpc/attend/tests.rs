//! What a proxy answers to questions, and what its summaries count.

use ambit_xds::observe::{Example, Key, Side};
use ambit_xds::proto::ambit::observe::v1::{Cancel, Certificates, Connections, Flows, Reporter, SelfTests};

use super::*;

/// Answers at once, and follows until nobody listens.
#[derive(Debug)]
struct Ready;

impl Attendant for Ready {
    fn answer(&self, question: Question) -> Later<Result<Bytes, String>> {
        Box::pin(async move {
            match question {
                Question::Connections { most } => Ok(Bytes::from(most.to_string())),
                Question::Certificates { identity } => Ok(Bytes::from(identity.unwrap_or_default())),
                Question::Explain(_) | Question::SelfTests | Question::Budget => Err("not here".to_owned()),
            }
        })
    }

    fn flows(&self, asked: Asked, to: mpsc::Sender<Told>) -> Later<Memory> {
        Box::pin(async move {
            for number in 0..asked.last {
                let _ = to.send(Told::Record(Bytes::from(number.to_string()))).await;
            }
            let _ = to.send(Told::Lost(7)).await;
            if asked.follow {
                to.closed().await;
            }
            Memory { records: 5, ..Memory::default() }
        })
    }

    fn records_lost(&self) -> u64 {
        0
    }

    fn count_live(&self) {}
}

fn count(tally: &Tally) {
    let key = Key {
        reporter: Reporter::Source,
        source: Side::default(),
        destination: Side::default(),
        service: "".into(),
        port: 1,
        path: "hbone",
        is_denied: false,
        reason: None,
        policy: None,
        client: None,
    };
    tally.cell(key, || [Example::default(), Example::default()]).unwrap().end();
}

#[test]
fn a_summary_is_told_until_it_is_acknowledged_and_nothing_is_lost_meanwhile() {
    let tally = Tally::default();
    let now = clock::monotonic();
    let mut summaries = Summaries { number: 0, since: now, pending: None, is_sent: false, lost_told: 0 };
    assert_eq!(summaries.due(&tally, 0), None, "nothing has happened");
    count(&tally);
    assert_eq!(summaries.due(&tally, 0).map(|s| (s.number, s.pairs[0].ended)), Some((1, 1)));
    summaries.is_sent = true;
    count(&tally);
    assert_eq!(summaries.due(&tally, 0), None, "the first one is on its way");
    summaries.is_sent = false;
    assert_eq!(summaries.due(&tally, 0).map(|s| s.number), Some(1), "a new stream tells it again");
    summaries.acknowledged(2);
    assert!(summaries.pending.is_some(), "another number says nothing");
    summaries.acknowledged(1);
    assert_eq!(summaries.due(&tally, 0).map(|s| (s.number, s.pairs[0].ended)), Some((2, 1)));
}

async fn next(messages: &mut mpsc::Receiver<FromProxy>) -> from_proxy::Content {
    messages.recv().await.and_then(|message| message.content).unwrap()
}

#[tokio::test]
async fn questions_are_answered_refused_and_cancelled() {
    let (send, mut messages) = mpsc::channel(64);
    let mut questions = Questions::new(Arc::new(Ready), send);
    // Never more than a message has room for, whoever asks.
    for (id, asked, most) in [(10, 7, "7"), (11, 0, "5000"), (12, u32::MAX, "5000")] {
        questions.take(id, to_proxy::Content::Connections(Connections { most: asked }));
        let from_proxy::Content::Answer(answer) = next(&mut messages).await else { panic!("an answer") };
        assert_eq!((answer.id, &*answer.json), (id, most.as_bytes()), "{asked}");
    }
    questions.take(2, to_proxy::Content::SelfTests(SelfTests {}));
    let from_proxy::Content::Ended(ended) = next(&mut messages).await else { panic!("an end") };
    assert_eq!((ended.id, &*ended.error), (2, "not here"));
    let wrong = Flows { filter: [("colour".to_owned(), "red".to_owned())].into(), last: 1, follow: false };
    questions.take(3, to_proxy::Content::Flows(wrong));
    let from_proxy::Content::Ended(ended) = next(&mut messages).await else { panic!("an end") };
    assert!(ended.id == 3 && ended.error.contains("colour"), "{ended:?}");
    for (id, identity) in [(4, ""), (5, "spiffe://m/ns/shop/sa/web")] {
        questions.take(id, to_proxy::Content::Certificates(Certificates { identity: identity.to_owned() }));
        let from_proxy::Content::Answer(answer) = next(&mut messages).await else { panic!("an answer") };
        assert_eq!((answer.id, &*answer.json), (id, identity.as_bytes()));
    }
}

#[tokio::test]
async fn records_come_packed_with_what_was_lost_and_end_with_what_is_held() {
    let (send, mut messages) = mpsc::channel(64);
    let mut questions = Questions::new(Arc::new(Ready), send);
    questions.take(1, to_proxy::Content::Flows(Flows { last: 1000, ..Flows::default() }));
    let (mut records, mut lost) = (0, 0);
    let ended = loop {
        match next(&mut messages).await {
            from_proxy::Content::Records(pack) => {
                assert!(pack.records.len() <= 512);
                records += pack.records.len();
                lost += pack.lost;
            }
            from_proxy::Content::Ended(ended) => break ended,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((records, lost), (1000, 7));
    assert_eq!(ended.memory.map(|memory| memory.records), Some(5));
}

#[tokio::test]
async fn who_follows_hears_no_end_until_it_cancels() {
    let (send, mut messages) = mpsc::channel(64);
    let mut questions = Questions::new(Arc::new(Ready), send);
    questions.take(1, to_proxy::Content::Flows(Flows { follow: true, ..Flows::default() }));
    assert!(matches!(next(&mut messages).await, from_proxy::Content::Records(_)));
    questions.take(1, to_proxy::Content::Cancel(Cancel {}));
    drop(questions);
    assert_eq!(messages.recv().await, None, "a question that is cancelled says nothing more");
}
