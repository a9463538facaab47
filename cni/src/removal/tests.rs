//! Whether the end of the program is that of the mesh on the node.

use std::cell::RefCell;
use std::collections::VecDeque;

use ambit_kube::Call;
use serde_json::json;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Asks a server that says these words in turn, then the last one for ever; also how often it was asked.
async fn told(words: &[Word]) -> (bool, usize) {
    let left: RefCell<VecDeque<Word>> = RefCell::new(words.iter().cloned().collect());
    let count = RefCell::new(0);
    let ask = || {
        *count.borrow_mut() += 1;
        let mut left = left.borrow_mut();
        let next = if left.len() > 1 { left.pop_front() } else { left.front().cloned() };
        std::future::ready(next.unwrap_or(Word::There))
    };
    let is_gone = is_told_gone(ask, PATIENCE).await;
    (is_gone, count.into_inner())
}

fn unsaid() -> Word {
    Word::Unsaid("connection refused".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_slow_to_say_is_asked_again() {
    let slow = vec![unsaid(); 30];
    let words = |last: Word| slow.iter().cloned().chain([last]).collect::<Vec<_>>();
    assert_eq!(told(&words(Word::Gone)).await, (true, 31));
    assert_eq!(told(&words(Word::There)).await, (false, 31));
}

#[tokio::test(start_paused = true)]
async fn without_a_word_everything_stays_and_the_wait_ends() {
    let begun = tokio::time::Instant::now();
    let (is_gone, count) = told(&[unsaid()]).await;
    assert!(!is_gone && count > 10, "asked {count} times");
    let waited = begun.elapsed();
    assert!(waited >= PATIENCE && waited < PATIENCE + Duration::from_secs(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_again() {
    assert_eq!(told(&[Word::Refused("forbidden".to_owned())]).await, (false, 1));
}

#[test]
fn only_a_deleted_set_is_gone() {
    let status = |code: u16| {
        let call = Call {
            verb: "get",
            group: "apps".to_owned(),
            resource: "daemonsets".to_owned(),
            namespace: Some("istio-system".to_owned()),
            name: Some("ambit-cni".to_owned()),
        };
        KubeError::of_status(Box::new(call), code, "told so".to_owned())
    };
    assert_eq!(word(Ok(None)), Word::Gone);
    assert_eq!(word(Ok(Some(json!({"metadata": {"name": "ambit-cni"}})))), Word::There);
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(word(Ok(Some(leaving))), Word::Gone);
    assert!(matches!(word(Err(status(403))), Word::Refused(_)));
    for code in [429, 500, 503] {
        assert!(matches!(word(Err(status(code))), Word::Unsaid(_)), "{code}");
    }
}
