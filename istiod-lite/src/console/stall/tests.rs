//! Which readers are waited for.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

/// What the pipe between both ends holds.
const PIPE: usize = 1 << 10;
const WITHIN: Duration = Duration::from_millis(200);
/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn who_takes_nothing_is_given_up() {
    let (near, _far) = duplex(PIPE);
    let mut near = Stalling::new(near, WITHIN);
    let sent =
        tokio::time::timeout(PATIENCE, near.write_all(&[0; 2 * PIPE])).await.expect("it waits for ever");
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_takes_next_to_nothing_is_given_up() {
    let (near, mut far) = duplex(PIPE);
    let mut near = Stalling::new(near, WITHIN);
    let trickle = async {
        // Far more often than the limit, and far too little.
        while far.read_u8().await.is_ok() {
            sleep(WITHIN / 20).await;
        }
    };
    let sent = async {
        tokio::select! {
            sent = near.write_all(&[0; 16 * PIPE]) => sent,
            () = trickle => panic!("the reader ended first"),
        }
    };
    let sent = tokio::time::timeout(PATIENCE, sent).await.expect("it waits for ever");
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_reads_gets_everything_however_long_there_was_nothing_to_take() {
    const BYTES: usize = 1 << 20;
    let (near, mut far) = duplex(PIPE);
    let mut near = Stalling::new(near, WITHIN);
    near.write_all(&[1; 8]).await.unwrap();
    sleep(2 * WITHIN).await;
    let mut all = Vec::new();
    let write = async {
        near.write_all(&vec![1; BYTES]).await.unwrap();
        drop(near);
    };
    let both = async { tokio::join!(write, far.read_to_end(&mut all)) };
    let ((), read) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(read.unwrap(), BYTES + 8);
}
