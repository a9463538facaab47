//! Proxies that attend, those who ask them, and what neither may lose unseen.

use ambit_types::Workload;
use ambit_xds::proto::ambit::observe::v1::{
    Answer, Cancel, End, Ended, FromProxy, Pair, Records, Reporter, from_proxy,
};

use super::*;
use crate::console::Gathered as _;

type Queue = mpsc::Receiver<Result<ToProxy, Status>>;

fn who(name: &str, instance: u64) -> Who {
    Who { name: name.to_owned(), node: name.to_owned(), gateway: None, version: "1".to_owned(), instance }
}

/// A hub that knows of shop/web on n1.
fn hub() -> Hub {
    let hub = Hub::default();
    let mut web = Workload::new("Kubernetes//Pod/shop/web", "shop", "web");
    web.node = "n1".into();
    hub.placed(&Delta { workloads: [(web.uid.clone(), Arc::new(web))].into(), ..Delta::default() });
    hub
}

fn attend(hub: &Hub, name: &str, instance: u64) -> (Attended, Queue) {
    let (send, queue) = mpsc::channel(Hub::QUEUE);
    (hub.attend(who(name, instance), send).unwrap(), queue)
}

fn asked(queue: &mut Queue) -> (u64, to_proxy::Content) {
    let message = queue.try_recv().unwrap().unwrap();
    (message.id, message.content.unwrap())
}

fn say(content: from_proxy::Content) -> FromProxy {
    FromProxy { content: Some(content) }
}

fn pair(source: &str, destination: &str) -> Pair {
    let end = |workload: &str| {
        Some(End { namespace: "shop".to_owned(), workload: workload.to_owned(), ..End::default() })
    };
    Pair {
        reporter: Reporter::Source.into(),
        source: end(source),
        destination: end(destination),
        path: "hbone".to_owned(),
        opened: 1,
        ..Pair::default()
    }
}

fn told(number: u64, pairs: Vec<Pair>) -> FromProxy {
    say(from_proxy::Content::Summary(Summary { number, pairs, ..Summary::default() }))
}

fn summary(number: u64) -> FromProxy {
    told(number, vec![pair("web", "db")])
}

fn connections(hub: &Hub) -> u64 {
    hub.edges(Duration::from_secs(60)).iter().filter_map(|edge| edge["connections"].as_u64()).sum()
}

#[test]
fn a_summary_told_twice_is_counted_once() {
    let hub = hub();
    let (attended, _queue) = attend(&hub, "n1", 7);
    for number in [1, 1, 2] {
        let answer = attended.heard(summary(number), 0).unwrap().content.unwrap();
        assert!(matches!(answer, to_proxy::Content::Acknowledge(told) if told.number == number));
    }
    drop(attended);
    let (again, _queue) = attend(&hub, "n1", 7);
    again.heard(summary(2), 0);
    assert_eq!(connections(&hub), 2);
    let (other, _queue) = attend(&hub, "n1", 8);
    other.heard(summary(1), 0);
    assert_eq!(connections(&hub), 3, "another instance counts for itself");
}

/// Neither the map nor the incidents nor what rules are made of has it; that it was told is counted.
#[test]
fn what_a_proxy_tells_of_others_is_counted_as_lost_and_nowhere_else() {
    let hub = hub();
    let (attended, _queue) = attend(&hub, "n1", 7);
    let refused =
        Pair { denied: true, code: "AMB2104".to_owned(), opened: 0, ended: 5, ..pair("vault", "db") };
    let answer = attended.heard(told(1, vec![pair("web", "db"), refused, pair("vault", "db")]), 0);
    assert!(answer.is_some(), "the summary is acknowledged, or it would be told for ever");
    assert_eq!((connections(&hub), hub.coverage().lost), (1, 6));
    assert!(hub.items_of_incidents().is_empty());
    assert_eq!(hub.seen(Duration::from_secs(60)).len(), 1);
    assert!(lock(&hub.inner.counted)[&7].is_warned);
    attended.heard(summary(1), 0);
    assert_eq!(connections(&hub), 1, "that it was warned of does not make a summary new");
}

#[test]
fn how_far_the_counts_go_is_told_while_anybody_attends() {
    let hub = hub();
    assert_eq!(hub.coverage().until, None);
    let (attended, _queue) = attend(&hub, "n1", 7);
    assert!(hub.coverage().until.is_some());
    drop(attended);
    assert_eq!(hub.coverage().until, None);
}

#[tokio::test]
async fn records_of_all_come_in_order_with_what_is_missing() {
    let hub = Hub::default();
    let (one, mut one_queue) = attend(&hub, "n1", 1);
    let (two, mut two_queue) = attend(&hub, "n2", 2);
    let answer = hub.flows(BTreeMap::from([("verdict".to_owned(), "denied".to_owned())]), 10);
    let answer = answered_by(answer, || {
        let (id, content) = asked(&mut one_queue);
        let to_proxy::Content::Flows(flows) = content else { panic!("{content:?}") };
        assert_eq!((flows.last, &*flows.filter["verdict"]), (10, "denied"));
        let records = [r#"{"time":"2"}"#, r#"{"time":"4"}"#].map(Bytes::from);
        one.heard(say(from_proxy::Content::Records(Records { id, records: records.to_vec(), lost: 3 })), 0);
        let memory = Some(Memory { lost: 4, oldest_ms: 1000, ..Memory::default() });
        one.heard(say(from_proxy::Content::Ended(Ended { id, error: String::new(), memory })), 0);
        asked(&mut two_queue);
        drop(two);
    })
    .await;
    let times: Vec<&str> = answer.records.iter().filter_map(|record| record["time"].as_str()).collect();
    assert_eq!(times, ["2", "4"]);
    assert_eq!((answer.lost, answer.oldest.as_deref()), (7, Some("1970-01-01T00:00:01.000Z")));
    assert_eq!(answer.incomplete, ["n2 has left"]);
}

/// Polls `work` once, so that it has asked, then answers, then waits for it.
async fn answered_by<T>(mut work: crate::console::Later<T>, answer: impl FnOnce()) -> T {
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = std::future::ready(()) => {}
    }
    answer();
    work.await
}

#[tokio::test]
async fn every_proxy_is_asked_and_its_answer_stands_under_its_name() {
    let hub = Hub::default();
    let (one, mut queue) = attend(&hub, "n1", 1);
    let asking = hub.clone();
    let work: crate::console::Later<_> =
        Box::pin(async move { asking.ask(Question::Connections { most: 7 }, None).await });
    let answers = answered_by(work, || {
        let (id, content) = asked(&mut queue);
        assert!(matches!(content, to_proxy::Content::Connections(asked) if asked.most == 7));
        one.heard(say(from_proxy::Content::Answer(Answer { id, json: Bytes::from_static(b"[1]") })), 0);
    })
    .await;
    assert_eq!(answers, Some(BTreeMap::from([("n1".to_owned(), Ok(serde_json::json!([1])))])));
}

#[tokio::test]
async fn certificates_are_asked_of_the_proxy_that_is_named_and_of_waypoints_too() {
    let hub = Hub::default();
    let (_one, mut one_queue) = attend(&hub, "n1", 1);
    let (send, mut two_queue) = mpsc::channel(Hub::QUEUE);
    let gateway = Some(Name::new("shop", "wp"));
    let two = hub.attend(Who { gateway, ..who("shop/wp-0", 2) }, send).unwrap();
    let web = "spiffe://m/ns/shop/sa/web";
    let answer = hub.certificates(Some(web.to_owned()), Some("shop/wp-0".to_owned()));
    let answers = answered_by(answer, || {
        assert!(one_queue.try_recv().is_err(), "it was not named");
        let (id, content) = asked(&mut two_queue);
        assert!(matches!(content, to_proxy::Content::Certificates(asked) if asked.identity == web));
        let error = "this proxy does not know such a question".to_owned();
        two.heard(say(from_proxy::Content::Ended(Ended { id, error, memory: None })), 0);
    })
    .await;
    let why = Err("this proxy does not know such a question".to_owned());
    assert_eq!(answers, BTreeMap::from([("shop/wp-0".to_owned(), why)]), "one of an earlier version");
}

#[tokio::test]
async fn everybody_is_asked_for_certificates_once_at_a_time() {
    let hub = Hub::default();
    let (one, mut queue) = attend(&hub, "n1", 1);
    let mut second = hub.certificates(None, None);
    let answers = answered_by(hub.certificates(None, None), || {
        let (id, _) = asked(&mut queue);
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        assert!(queue.try_recv().is_err(), "the second one waits for its turn");
        let json = Bytes::from_static(b"[{\"identity\": \"spiffe://m/ns/shop/sa/web\"}]");
        one.heard(say(from_proxy::Content::Answer(Answer { id, json })), 0);
    })
    .await;
    assert!(answers["n1"].is_ok(), "{answers:?}");
    let answers = answered_by(second, || {
        let (id, _) = asked(&mut queue);
        one.heard(say(from_proxy::Content::Answer(Answer { id, json: Bytes::from_static(b"{}") })), 0);
    })
    .await;
    let why = answers["n1"].clone().unwrap_err();
    assert_eq!(why, "the answer cannot be read");
}

#[tokio::test]
async fn what_went_wrong_with_a_proxy_steers_no_terminal_and_is_not_long() {
    let hub = Hub::default();
    let (one, mut queue) = attend(&hub, "n1", 1);
    let answers = answered_by(hub.certificates(None, None), || {
        let (id, _) = asked(&mut queue);
        let error = format!("\u{1b}[2Jno\n{}", "x".repeat(100_000));
        one.heard(say(from_proxy::Content::Ended(Ended { id, error, memory: None })), 0);
    })
    .await;
    let why = answers["n1"].clone().unwrap_err();
    assert!(why.starts_with(" [2Jno x"), "{why:?}");
    assert!(why.len() < 1000, "{}", why.len());
}

#[tokio::test]
async fn who_follows_hears_of_proxies_that_come_later_and_cancels_when_it_goes() {
    let hub = Hub::default();
    let mut records = hub.follow(BTreeMap::new());
    let (attended, mut queue) = attend(&hub, "n1", 1);
    let (id, content) = asked(&mut queue);
    assert!(matches!(content, to_proxy::Content::Flows(flows) if flows.follow && flows.last == 0));
    let pack = Records { id, records: vec![Bytes::from_static(br#"{"time":"1"}"#)], lost: 2 };
    attended.heard(say(from_proxy::Content::Records(pack)), 0);
    assert_eq!(records.recv().await.unwrap()["lost"], 2);
    assert_eq!(records.recv().await.unwrap()["time"], "1");
    drop(records);
    let cancelled = queue.recv().await.unwrap().unwrap();
    assert_eq!((cancelled.id, cancelled.content), (id, Some(to_proxy::Content::Cancel(Cancel {}))));
}

#[tokio::test]
async fn who_is_slow_loses_records_exactly_and_holds_up_nobody() {
    let hub = Hub::default();
    let (attended, mut queue) = attend(&hub, "n1", 1);
    let mut asking = hub.ask_flows(Flows { follow: true, ..Flows::default() }).unwrap();
    let (id, _) = asked(&mut queue);
    let total = ANSWERS as u64 + 100;
    for _ in 0..total {
        let pack = Records { id, records: vec![Bytes::from_static(b"{}")], lost: 0 };
        attended.heard(say(from_proxy::Content::Records(pack)), 0);
    }
    let mut seen = 0;
    for _ in 0..ANSWERS {
        let Some(Heard { said: Said::Records(records, _), .. }) = asking.next().await else {
            panic!("records")
        };
        seen += records.len() as u64;
    }
    attended.heard(say(from_proxy::Content::Records(Records { id, ..Records::default() })), 0);
    let Some(Heard { said: Said::Records(_, lost), .. }) = asking.next().await else { panic!("a loss") };
    assert_eq!((seen, lost), (ANSWERS as u64, 100));
}

#[tokio::test]
async fn refusals_reach_watchers_at_once() {
    let hub = Hub::default();
    assert!(!hub.is_watched());
    let mut refusals = hub.refusals();
    assert!(hub.is_watched());
    let (attended, _queue) = attend(&hub, "n1", 1);
    let watch = attended.private_id();
    let records = vec![Bytes::from_static(br#"{"code":"AMB2104"}"#)];
    attended.heard(say(from_proxy::Content::Records(Records { id: watch, records, lost: 0 })), watch);
    assert_eq!(&*refusals.recv().await.unwrap(), r#"{"code":"AMB2104"}"#);
}

fn pack(id: u64, records: Vec<Bytes>) -> FromProxy {
    say(from_proxy::Content::Records(Records { id, records, lost: 0 }))
}

/// A record that ended at a time, of about so many bytes.
fn record(time: u32, bytes: usize) -> Bytes {
    Bytes::from(serde_json::json!({ "time": format!("{time:06}"), "x": "x".repeat(bytes) }).to_string())
}

#[tokio::test]
async fn of_who_is_slow_no_more_bytes_wait_than_there_is_room_for() {
    const BYTES: usize = RECORD_BYTES_MAX / 2;
    let hub = Hub::default();
    let (attended, mut queue) = attend(&hub, "n1", 1);
    let mut asking = hub.ask_flows(Flows { follow: true, ..Flows::default() }).unwrap();
    let (id, _) = asked(&mut queue);
    // Far fewer messages than may wait.
    for time in 0..500 {
        attended.heard(pack(id, vec![record(time, BYTES)]), 0);
    }
    assert!(asking.queued.load(Ordering::Relaxed) <= FOLLOWED_BYTES_MAX);
    let mut heard: u64 = 0;
    while asking.queued.load(Ordering::Relaxed) > 0 {
        let Some(Heard { said: Said::Records(records, lost), .. }) = asking.next().await else {
            panic!("records")
        };
        assert_eq!(lost, 0, "it is told with the next ones");
        heard += records.len() as u64;
    }
    assert!(heard > 0 && heard < 500, "{heard}");
    attended.heard(pack(id, vec![record(501, BYTES)]), 0);
    let Some(Heard { said: Said::Records(_, lost), .. }) = asking.next().await else { panic!("records") };
    assert_eq!(heard + lost, 500);
}

#[tokio::test]
async fn an_answer_holds_the_newest_records_that_there_is_room_for_and_says_what_it_left_out() {
    const BYTES: usize = RECORD_BYTES_MAX / 2;
    const TOLD: u32 = 1200;
    let hub = Hub::default();
    let (one, mut queue) = attend(&hub, "n1", 1);
    let answer = answered_by(hub.flows(BTreeMap::new(), 10_000), || {
        let (id, _) = asked(&mut queue);
        // Mixed up, as of several proxies.
        let times: Vec<u32> = (0..TOLD).map(|n| n * 7 % TOLD).collect();
        for times in times.chunks(30) {
            one.heard(pack(id, times.iter().map(|time| record(*time, BYTES)).collect()), 0);
        }
        one.heard(say(from_proxy::Content::Ended(Ended { id, ..Ended::default() })), 0);
    })
    .await;
    let bytes: usize = answer.records.iter().map(|record| record.to_string().len()).sum();
    assert!(bytes > 4 << 20 && bytes <= 8 << 20, "{bytes} bytes");
    assert_eq!(answer.records.len() as u64 + answer.left_out, u64::from(TOLD));
    let times: Vec<&str> = answer.records.iter().filter_map(|record| record["time"].as_str()).collect();
    let first = TOLD - u32::try_from(times.len()).unwrap();
    let want: Vec<String> = (first..TOLD).map(|time| format!("{time:06}")).collect();
    assert_eq!(times, want, "the newest, in order");
}

#[tokio::test]
async fn a_record_that_is_too_long_is_counted_and_not_passed_on() {
    let hub = Hub::default();
    let mut refusals = hub.refusals();
    let mut followed = hub.follow(BTreeMap::new());
    let (attended, mut queue) = attend(&hub, "n1", 1);
    let (id, _) = asked(&mut queue);
    let both = vec![record(1, RECORD_BYTES_MAX), record(2, 1)];
    attended.heard(pack(id, both.clone()), 0);
    assert_eq!(followed.recv().await.unwrap()["lost"], 1);
    assert_eq!(followed.recv().await.unwrap()["time"], "000002");
    let watch = attended.private_id();
    attended.heard(pack(watch, both), watch);
    assert!(refusals.recv().await.unwrap().contains("000002"));
}

#[test]
fn what_proxies_call_things_is_cut_before_it_is_kept_among_incidents() {
    let hub = hub();
    let (attended, _queue) = attend(&hub, "n1", 1);
    let long = "x".repeat(1 << 20);
    let end = Some(End { namespace: long.clone(), workload: long.clone(), ..End::default() });
    let pair = Pair {
        reporter: Reporter::Destination.into(),
        source: end,
        denied: true,
        ended: 1,
        code: long.clone(),
        policy: long.clone(),
        ..pair("", "web")
    };
    let told = Summary { number: 1, pairs: vec![pair], ..Summary::default() };
    attended.heard(say(from_proxy::Content::Summary(told)), 0);
    hub.changed(2, long);
    let items = hub.items_of_incidents();
    assert_eq!(items.len(), 2);
    for item in items {
        assert!(item.to_string().len() < 8 << 10, "{} bytes", item.to_string().len());
    }
}

#[test]
fn there_is_an_end_to_how_many_attend_under_one_name() {
    let hub = Hub::default();
    let all: Vec<_> = (0..PER_NAME_MAX as u64).map(|instance| attend(&hub, "n1", instance)).collect();
    let (send, _queue) = mpsc::channel(Hub::QUEUE);
    assert!(hub.attend(who("n1", 99), send.clone()).is_err());
    drop(all);
    assert!(hub.attend(who("n1", 99), send).is_ok());
}
