//! What a client can make a stream keep, and that one which keeps to the protocol gets through all the same.

use std::collections::VecDeque;

use super::*;
use crate::names::NAME_BYTES_MAX;

fn too_many(limits: Limits) -> StreamError {
    StreamError::TooManyNames { max: limits.names_max, bytes_max: limits.names_bytes_max }
}

#[test]
fn names_longer_than_any_can_be_end_the_stream() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let held = BTreeMap::from([(long.clone(), "1".to_owned())]);
    let rows = [
        (Rig::new(some()), names(&[&long], &[])),
        (on_demand(), names(&[&long], &[])),
        (on_demand(), names(&[], &[&long])),
        (Rig::new(some()), first(Kind::Address, held.clone())),
        (Rig::new(some()), first(Kind::Authorization, held)),
    ];
    for (index, (mut rig, request)) in rows.into_iter().enumerate() {
        let error = rig.stream.handle_request(request, rig.now);
        let want = StreamError::LongName { bytes: NAME_BYTES_MAX + 1, max: NAME_BYTES_MAX };
        assert_eq!(error, Err(want), "row {index}");
    }
    let longest = "n".repeat(NAME_BYTES_MAX);
    let response = on_demand().send(names(&[&longest], &[]));
    assert_eq!(response.unwrap().removed_resources, [longest]);
}

#[test]
fn a_type_is_not_repeated_in_full() {
    let mut rig = Rig::new(some());
    let type_url = "t".repeat(10_000);
    let request = DeltaDiscoveryRequest { type_url, ..DeltaDiscoveryRequest::default() };
    let error = rig.stream.handle_request(request, rig.now).unwrap_err().to_string();
    assert!(error.len() < 400, "{} bytes", error.len());
}

#[test]
fn keys_are_bounded_in_bytes_too() {
    let mut rig = on_demand();
    rig.stream.limits.names_bytes_max = 200;
    rig.send(names(&["a", "b"], &[]));
    let error = rig.stream.handle_request(names(&[&"c".repeat(100)], &[]), rig.now);
    assert_eq!(error, Err(too_many(rig.stream.limits)));
}

/// One stream of a client that holds `held`, from its first request to the last answer.
fn stream(
    rig: &mut Rig,
    mut open: DeltaDiscoveryRequest,
    held: &mut BTreeMap<String, String>,
) -> Result<(), StreamError> {
    rig.stream = Connection::new("n1", Arc::new(rig.resources.clone()), rig.stream.limits);
    open.initial_resource_versions = held.clone();
    let mut requests = VecDeque::from([open, first(Kind::Authorization, BTreeMap::new())]);
    while let Some(request) = requests.pop_front() {
        let Some(response) = rig.stream.handle_request(request, rig.now)? else { continue };
        for name in &response.removed_resources {
            held.remove(name);
        }
        if Kind::of(&response.type_url) == Some(Kind::Address) {
            held.extend(response.resources.into_iter().map(|one| (one.name, one.version)));
        }
        requests.push_front(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        });
    }
    Ok(())
}

#[test]
fn a_client_that_declares_more_than_has_room_comes_to_the_end_of_it() {
    for open in [names(&[WILDCARD], &[WILDCARD]), names(&[], &[])] {
        let mut rig = Rig::new(mesh());
        rig.stream.limits.names_max = 2;
        let published = ["s-1", "s-2", "wp-1", "own", "ns/s.example"].map(str::to_owned);
        let gone = (0..5).map(|number| format!("gone-{number}"));
        let mut held: BTreeMap<String, String> =
            gone.chain(published.clone()).map(|name| (name, "old".to_owned())).collect();
        let mut rounds = Vec::new();
        loop {
            let ended = stream(&mut rig, open.clone(), &mut held);
            rounds.push(held.keys().filter(|name| name.starts_with("gone")).count());
            assert!(published.iter().all(|name| held[name] != "old"), "what is published has room: {held:?}");
            let Err(error) = ended else { break };
            let max = 2;
            let bytes_max = rig.stream.limits.names_bytes_max;
            assert_eq!(error, StreamError::TooManyDeclared { max, bytes_max });
            assert!(rounds.len() < 4, "it does not end: {rounds:?}");
        }
        assert_eq!(rounds, [3, 1, 0]);
        // What it came with is followed.
        let mut pod = Workload::new("s-2", "ns", "s-2");
        pod.capacity = 9;
        let response = rig.publish(2, Delta { addresses: vec![pod.into()], ..Delta::default() });
        assert_eq!(brief(&response.unwrap()), "Address +s-2");
    }
}

#[test]
fn a_version_that_is_none_of_ours_is_not_kept() {
    let mut rig = Rig::new(some());
    let long = "v".repeat(1 << 20);
    let came = rig.subscribe(&[(Kind::Address, &[("w", long.as_str()), ("gone", long.as_str())])]);
    assert_eq!(came, ["Authorization +ns/p", "Address +ns/s.example +w -gone"]);
}

#[test]
fn who_comes_with_more_keys_than_are_kept_gets_everything_and_every_answer() {
    let mut rig = Rig::new(mesh());
    rig.stream.limits.names_max = 2;
    assert_eq!(rig.send(names(&[WILDCARD, "a", "b", "net/10.96.0.1"], &[WILDCARD])), None);
    assert!(rig.stream.has_too_many_names());
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    let all = "Address +ns/other.example +ns/s.example +ns/wp.example +o-1 +own +s-1 +s-2 +wp-1 -a -b";
    assert_eq!(rig.settle(response), ["Authorization", all]);
    for (key, want) in
        [("c", "Address -c"), ("s-1", "Address +s-1"), ("net/10.96.0.2", "Address +ns/wp.example")]
    {
        let response = rig.send(names(&[key], &[]));
        assert!(response.as_ref().unwrap().resources.iter().all(|one| !one.aliases.is_empty()), "{key}");
        assert_eq!(rig.settle(response), [want]);
        assert_eq!(rig.send(names(&[], &[key])), None, "{key}");
    }
    let response = rig.publish(2, Delta { addresses: vec![workload("late", &[])], ..Delta::default() });
    assert_eq!(rig.settle(response), ["Address +late"]);
    // What waits for an answer is bounded as ever, if there is nothing behind it.
    let response = rig.send(names(&["d"], &[]));
    assert!(response.is_some());
    assert_eq!(rig.send(names(&["e", "f", "s-1", "s-2"], &[])), None, "not answered yet");
    let error = rig.stream.handle_request(names(&["g"], &[]), rig.now);
    assert_eq!(error, Err(too_many(rig.stream.limits)));
}

#[test]
fn refusals_are_bounded_in_number_and_length() {
    let count = 1100;
    let policies = (0..count).map(|number| policy(&format!("p{number:04}"), 1)).collect();
    let mut rig = Rig::new(Delta { policies, ..Delta::default() });
    rig.send(first(Kind::Address, BTreeMap::new()));
    let response = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    let all: Vec<String> = (0..count).map(|number| format!("ns/p{number:04}: no")).collect();
    let text = format!("ns/p0000: {}; {}", "é".repeat(2000), all[1..].join("; "));
    rig.acknowledge(&response, &text);
    let kept: Vec<Rejection> = rig.stream.rejections().collect();
    assert_eq!(kept.len(), 1025);
    assert_eq!((&*kept[0].name, &*kept[1].name), ("", "ns/p0000"), "one says that there are more");
    let is_cut = |reason: &str| reason.ends_with('…') && reason.len() <= 1024 + '…'.len_utf8();
    assert!(is_cut(&kept[1].reason) && kept[2].reason == "no");

    let nameless = refusals(&"é".repeat(1 << 20), |_| false);
    assert!(nameless.len() == 1 && is_cut(&nameless[0].1));
    // What is said far behind is not read.
    let far = refusals(&format!("a: {}; b: no", "x".repeat(1 << 20)), |name| name.len() == 1);
    assert_eq!(far.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a"]);
}
