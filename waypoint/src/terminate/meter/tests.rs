//! What is counted, wherever the bytes are cut, and what ends a connection.

use std::time::{Duration, Instant};

use ambit_runtime::clock;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::{Count, Frames, Head, Metered, POISON, PREFACE_BYTES, TURN_FRAMES, Weight};

fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    let [.., a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, 0][..], &vec![7; length]].concat()
}

#[test]
fn frames_weigh_what_they_carry_of_users() {
    for (kind, flags, length, want) in [
        (0, 0, 5, Weight::User(5)),
        (0, 0, 0, Weight::Control),
        (0, 1, 0, Weight::Neither),
        (1, 4, 30, Weight::User(30)),
        (2, 0, 5, Weight::Control),
        (3, 0, 4, Weight::Neither),
        (4, 0, 0, Weight::Control),
        (6, 0, 8, Weight::Control),
        (8, 0, 4, Weight::Control),
        (9, 4, 5, Weight::Neither),
        (0xfa, 0, 0, Weight::Control),
    ] {
        assert_eq!(Head { length, kind, flags }.weight(), want, "row {kind} {flags} {length}");
    }
}

#[test]
fn headers_are_found_wherever_the_bytes_are_cut() {
    let all = [vec![1; 24], frame(6, 0, 8), frame(4, 1, 0), frame(0, 0, 300)].concat();
    for unit in 1..all.len() {
        let mut frames = Frames::behind(PREFACE_BYTES);
        let mut found = Vec::new();
        for mut part in all.chunks(unit) {
            while !part.is_empty() {
                let (taken, head) = frames.step(part);
                part = &part[taken..];
                found.extend(head.map(|head| (head.kind, head.length)));
            }
        }
        assert_eq!(found, [(6, 8), (4, 0), (0, 300)], "units of {unit}");
        assert!(frames.is_between());
    }
}

#[test]
fn what_users_send_pays_for_frames_and_a_second_forgets() {
    let start = clock::monotonic();
    let mut count = Count { since: start, unpaid: 0, most: 10 };
    let mut ask = |weight: Weight, at: Instant| count.is_excess(weight, || at);
    for _ in 0..10 {
        assert!(!ask(Weight::Control, start));
    }
    assert!(!ask(Weight::User(0), start));
    for _ in 0..8 {
        assert!(!ask(Weight::Control, start));
    }
    assert!(ask(Weight::Control, start));
    assert!(!ask(Weight::User(5 << 10), start));
    assert!(!ask(Weight::Control, start));
    for _ in 0..10 {
        assert!(!ask(Weight::Control, start + Duration::from_secs(1)));
    }
    assert!(ask(Weight::Control, start + Duration::from_millis(1900)));
}

/// The frames that came before the one too many arrive, that one too, and then the end.
#[tokio::test]
async fn a_flood_ends_behind_a_whole_frame() {
    for unit in [1, 7, 4096] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut metered = Metered::new(near, 3);
        let sound = [vec![1; 24], frame(6, 0, 8), frame(6, 0, 8), frame(6, 0, 8), frame(6, 0, 8)].concat();
        far.write_all(&sound).await.unwrap();
        far.write_all(&frame(6, 0, 8)).await.unwrap();
        drop(far);
        let mut read = Vec::new();
        let mut part = vec![0; unit];
        loop {
            let n = metered.read(&mut part).await.unwrap();
            read.extend_from_slice(&part[..n]);
            if n == 0 {
                break;
            }
        }
        assert_eq!(read, [&sound[..], &POISON].concat(), "units of {unit}");
    }
}

/// As many resets as streams are the library's matter, more of them are not.
#[tokio::test]
async fn resets_of_nothing_are_a_flood() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut metered = Metered::new(near, 3);
    let began = frame(1, 5, 10).repeat(200);
    let reset = |count: usize| frame(3, 0, 4).repeat(count);
    far.write_all(&[vec![1; 24], began.clone(), reset(203)].concat()).await.unwrap();
    far.write_all(&reset(2)).await.unwrap();
    drop(far);
    let mut read = Vec::new();
    metered.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [vec![1; 24], began, reset(204), POISON.to_vec()].concat());
}

#[tokio::test]
async fn a_sentence_from_outside_waits_for_the_frame_at_hand() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut metered = Metered::new(near, 100);
    let sound = [vec![1; 24], frame(0, 0, 100)].concat();
    far.write_all(&sound[..60]).await.unwrap();
    let mut read = vec![0; 60];
    metered.read_exact(&mut read).await.unwrap();
    metered.sentence().pass();
    far.write_all(&sound[60..]).await.unwrap();
    far.write_all(&frame(0, 0, 100)).await.unwrap();
    let mut rest = Vec::new();
    metered.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [&sound[60..], &POISON].concat());
}

/// Who is driven by one task reads all there is in one go, unless it is told to wait.
#[tokio::test]
async fn others_have_their_turn_between_many_frames() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut metered = Metered::new(near, 100);
    let turns = 3;
    // A turn ends with a whole read: up to nine frames more.
    let frames = usize::try_from((TURN_FRAMES + 10) * turns).unwrap();
    far.write_all(&[vec![1; 24], frame(0, 0, 1).repeat(frames), frame(0, 1, 1)].concat()).await.unwrap();
    let (mut read, mut waited) = (0, 0);
    while read < 24 + (frames + 1) * 10 {
        let mut part = [0; 100];
        let mut part = tokio::io::ReadBuf::new(&mut part);
        let polled = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut metered).poll_read(cx, &mut part);
            std::task::Poll::Ready(polled.is_ready())
        });
        if polled.await {
            read += part.filled().len();
        } else {
            waited += 1;
        }
    }
    assert_eq!(waited, turns);
}
