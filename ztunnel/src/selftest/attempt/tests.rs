//! Loopback belongs to every program of a node: who comes to the self-test uninvited changes nothing of it.

use super::*;

const NONCE: Nonce = [7; 16];
const WHOLE: App = App { reads: true, answers: true };
/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[tokio::test]
async fn the_door_serves_the_attempts_own_connection_and_sends_others_away() {
    let door = Place::open().await.unwrap();
    // They stand before it at the door.
    let mut stranger = TcpStream::connect(door.address).await.unwrap();
    let own = TcpStream::connect(door.address).await.unwrap();
    let (tell, told) = oneshot::channel();
    introduce(&own, tell);
    let (_served, peer) = in_time(door.only(told)).await.expect("the own connection");
    assert_eq!(peer, own.local_addr().unwrap());
    let ended = in_time(stranger.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "the stranger is held on to: {ended:?}");
}

#[tokio::test]
async fn without_a_connection_of_its_own_the_door_serves_nobody() {
    let door = Place::open().await.unwrap();
    let _stranger = TcpStream::connect(door.address).await.unwrap();
    let (tell, told) = oneshot::channel();
    drop(tell);
    assert!(in_time(door.only(told)).await.is_none());
}

#[tokio::test]
async fn the_application_answers_who_says_the_bytes_however_many_come_before() {
    let app = Place::open().await.unwrap();
    let let_in = LetIn::default();
    let work = async {
        let mut silent = Vec::new();
        for _ in 0..=GUESTS_MAX {
            silent.push(TcpStream::connect(app.address).await.unwrap());
        }
        let mut liar = TcpStream::connect(app.address).await.unwrap();
        liar.write_all(&[8; 16]).await.unwrap();
        let ended = liar.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "other bytes are answered: {ended:?}");
        assert!(!let_in.is_noted(), "other bytes let nobody in");
        let (tell, _told) = oneshot::channel();
        let back = say(app.address, &NONCE, tell).await.unwrap();
        // The first of them had to make room.
        let ended = silent[0].read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        back
    };
    let back = in_time(beside(work, application(&app.listener, WHOLE, &NONCE, &let_in))).await;
    assert_eq!(back, NONCE);
    assert!(let_in.is_noted());
}
