//! What a connection to ztunnel is told, in which order.

use super::*;

/// One step: what happens, then everything that is sent, each answered with an ack unless the step says otherwise.
#[track_caller]
fn run(steps: &[(&str, &str)]) -> Roster<u32> {
    let mut roster = Roster::default();
    for (step, want) in steps {
        let sent = take(&mut roster, step);
        assert_eq!(sent, *want, "after {step:?}");
    }
    roster
}

fn take(roster: &mut Roster<u32>, step: &str) -> String {
    let words: Vec<&str> = step.split_whitespace().collect();
    let id = |at: usize| words[at].parse::<LineId>().unwrap();
    let (mut answer, mut silent) = (Ok(()), false);
    match words[0] {
        "connect" => roster.handle_connected(id(1)),
        "hello" => roster.handle_hello(id(1)),
        "set" => roster.handle_set(words[1], entry(words[1], words.get(2).map(|n| n.parse().unwrap()))),
        "remove" => roster.handle_remove(words[1]),
        "lose" => roster.handle_lost(id(1)),
        "answer" => roster.handle_answer(id(1), Ok(())),
        other => panic!("{other}"),
    }
    match words.last().copied() {
        Some("refused") => answer = Err("no".to_owned()),
        Some("silent") => silent = true,
        _ => {}
    }
    let mut sent = Vec::new();
    for line in roster.lines() {
        while let Some(message) = roster.poll(line) {
            sent.push(format!("{line}:{}", describe(&message)));
            if silent {
                break;
            }
            roster.handle_answer(line, answer.clone());
        }
    }
    sent.join(" ")
}

fn entry(uid: &str, netns: Option<u32>) -> Entry<u32> {
    let (name, namespace, service_account) = (uid.to_owned(), "shop".to_owned(), "cart".to_owned());
    Entry { name, namespace, service_account, netns }
}

fn describe(message: &Message<u32>) -> String {
    match message {
        Message::Add(uid, entry) => format!("+{uid}@{}", entry.netns.unwrap()),
        Message::Keep(uid) => format!("={uid}"),
        Message::Del(uid) => format!("-{uid}"),
        Message::SnapshotSent => "!".to_owned(),
    }
}

#[test]
fn a_connection_gets_everything_then_the_end_of_the_snapshot_then_changes() {
    let roster = run(&[
        ("set a 1", ""),
        ("set b 0 ", ""),
        ("connect 7", ""),
        ("set c 3", ""),
        ("hello 7", "7:+a@1 7:+b@0 7:+c@3 7:!"),
        ("set d 4", "7:+d@4"),
        ("set d 4", ""),
        ("remove a", "7:-a"),
        ("remove a", ""),
        ("remove never", ""),
    ]);
    assert_eq!(roster.holding("d"), Holding::Held);
    assert!(roster.is_served());
}

#[test]
fn a_pod_whose_namespace_is_not_at_hand_is_kept_and_only_within_the_snapshot() {
    let mut roster = Roster::default();
    roster.handle_set("lost", entry("lost", None));
    assert_eq!(take(&mut roster, "connect 1"), "");
    assert_eq!(take(&mut roster, "hello 1"), "1:=lost 1:!");
    assert_eq!(roster.holding("lost"), Holding::Waiting);
    roster.handle_set("other", entry("other", None));
    assert_eq!(take(&mut roster, "set found 2"), "1:+found@2");
    assert_eq!(take(&mut roster, "set lost 5"), "1:+lost@5");
    assert_eq!(roster.holding("lost"), Holding::Held);
}

#[test]
fn adds_go_to_the_newest_and_deletes_to_all() {
    run(&[
        ("set a 1", ""),
        ("connect 1", ""),
        ("hello 1", "1:+a@1 1:!"),
        ("connect 2", ""),
        ("set b 2", "1:+b@2"),
        ("hello 2", "2:+a@1 2:+b@2 2:!"),
        ("set c 3", "2:+c@3"),
        ("remove a", "1:-a 2:-a"),
        // The older one was never given c.
        ("remove c", "2:-c"),
    ]);
}

#[test]
fn when_the_newest_goes_the_older_one_gets_what_it_missed() {
    let roster = run(&[
        ("set a 1", ""),
        ("connect 1", ""),
        ("hello 1", "1:+a@1 1:!"),
        ("connect 2", ""),
        ("hello 2", "2:+a@1 2:!"),
        ("set b 2", "2:+b@2"),
        ("lose 2", "1:+b@2"),
        ("lose 1", ""),
    ]);
    assert_eq!(roster.holding("a"), Holding::NoZtunnel);
    assert!(!roster.is_served());
}

#[test]
fn a_refusal_is_remembered_and_asked_again() {
    let mut roster = run(&[("connect 1", ""), ("hello 1", "1:!"), ("set a 1 refused", "1:+a@1")]);
    assert_eq!(roster.holding("a"), Holding::Refused("no".to_owned()));
    assert_eq!(take(&mut roster, "set a 1"), "1:+a@1");
    assert_eq!(roster.holding("a"), Holding::Held);
}

#[test]
fn another_namespace_under_the_same_uid_is_sent_again() {
    run(&[
        ("connect 1", ""),
        ("hello 1", "1:!"),
        ("set a 1", "1:+a@1"),
        ("set a 2", "1:+a@2"),
        ("set a 2", ""),
    ]);
}

#[test]
fn one_message_is_under_way_at_a_time_and_a_removal_overtakes_nothing_that_was_sent() {
    let mut roster = run(&[
        ("connect 1", ""),
        ("hello 1", "1:!"),
        ("set a 1 silent", "1:+a@1"),
        ("set b 2 silent", ""),
        ("remove a silent", ""),
        ("remove b silent", ""),
    ]);
    assert!(roster.is_leaving("a"));
    // b was never sent, so there is nothing to delete; a was.
    assert_eq!(take(&mut roster, "answer 1"), "1:-a");
    assert!(!roster.is_leaving("a"));
    assert!(roster.is_empty());
}

#[test]
fn what_leaves_during_the_snapshot_is_deleted_even_if_it_was_not_sent() {
    // An earlier connection may have given it to this ztunnel; the end of the snapshot would stop it anyway.
    run(&[
        ("set a 1", ""),
        ("set b 2", ""),
        ("connect 1", ""),
        ("hello 1 silent", "1:+a@1"),
        ("remove b silent", ""),
        ("answer 1", "1:! 1:-b"),
    ]);
}
