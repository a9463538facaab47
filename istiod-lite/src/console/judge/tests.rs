//! How many judge at once, and who keeps a turn.

use std::sync::mpsc as blocking;

use tokio::sync::oneshot;

use super::*;

fn done(words: &str) -> Reply {
    Reply::text(StatusCode::OK, words)
}

fn status(reply: Reply) -> StatusCode {
    reply.into_response().status()
}

/// Asks, and leaves as soon as the work has begun; it ends when what is returned says so or goes away.
async fn ask_and_leave(room: &Room) -> blocking::Sender<()> {
    let (begin, begun) = oneshot::channel();
    let (release, held) = blocking::channel();
    let asked = room.answer(move || {
        let _ = begin.send(());
        let _ = held.recv();
        done("nobody waits for it")
    });
    tokio::select! {
        _ = asked => panic!("it is held back"),
        begun = begun => begun.unwrap(),
    }
    release
}

#[tokio::test]
async fn work_whose_asker_has_left_keeps_its_turn() {
    let room = Room::new(2, 2);
    let one = ask_and_leave(&room).await;
    assert_eq!(room.turns.available_permits(), 1, "the work goes on");
    let two = ask_and_leave(&room).await;
    assert_eq!(room.turns.available_permits(), 0, "the work goes on");
    let third = room.answer(|| done("third"));
    tokio::pin!(third);
    tokio::select! {
        biased;
        _ = &mut third => panic!("three at once"),
        () = std::future::ready(()) => {}
    }
    drop(one);
    assert_eq!(status(third.await), StatusCode::OK);
    drop(two);
}

#[tokio::test]
async fn who_finds_no_seat_is_sent_away_at_once() {
    let room = Room::new(1, 1);
    let one = ask_and_leave(&room).await;
    let second = room.answer(|| done("second"));
    tokio::pin!(second);
    tokio::select! {
        biased;
        _ = &mut second => panic!("two at once"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(status(room.answer(|| done("third")).await), StatusCode::SERVICE_UNAVAILABLE);
    drop(one);
    assert_eq!(status(second.await), StatusCode::OK);
    // The seats of all are free again.
    assert_eq!(status(room.answer(|| done("fourth")).await), StatusCode::OK);
}

#[tokio::test]
async fn work_that_panics_gives_its_turn_back() {
    let room = Room::new(1, 0);
    let failed = room.answer(|| panic!("a fault")).await;
    assert_eq!(status(failed), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status(room.answer(|| done("next")).await), StatusCode::OK);
}
