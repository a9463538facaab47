//! Frames are read back, and every kind of damage is told apart.

use bytes::BytesMut;

use super::{Faults, Kind, Sequencer, Stream, Verifier, decode};

const STREAM: Stream = Stream { client: 7, connection: 3 };

#[test]
fn frames_come_back_as_they_were() {
    let mut bytes = frames(&["a", "", "c"]).concat();
    let mut verifier = Verifier::new(Some(STREAM));
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    // One byte at a time: a frame is told exactly when its last byte has come.
    for byte in bytes.drain(..) {
        buffer.extend_from_slice(&[byte]);
        if let Some(frame) = decode(&mut buffer).unwrap() {
            verifier.accept(&frame);
            seen.push((frame.kind, frame.sequence, frame.sent_us, frame.payload));
        }
    }
    let row =
        |n: u64, text: &'static str| (Kind::Data, n, n * 10, bytes::Bytes::from_static(text.as_bytes()));
    assert_eq!(seen, [row(0, "a"), row(1, ""), row(2, "c")]);
    assert!(verifier.report().faults.is_none() && buffer.is_empty());
    assert_eq!((verifier.report().frames, verifier.report().bytes), (3, 2));
}

#[test]
fn each_fault_is_told_apart() {
    let none = Faults::default();
    check("in order", &[0, 1, 2, 3], none);
    check("lost", &[0, 3], Faults { lost: 2, ..none });
    check("lost first", &[2, 3], Faults { lost: 2, ..none });
    check("duplicated", &[0, 1, 1, 2], Faults { duplicated: 1, ..none });
    check("reordered", &[0, 2, 1, 3], Faults { reordered: 1, ..none });
    check("late and twice", &[0, 2, 1, 1, 3], Faults { reordered: 1, duplicated: 1, ..none });
    check("from the beginning again", &[0, 1, 0, 1], Faults { duplicated: 2, ..none });
}

#[test]
fn a_changed_byte_is_corruption_and_another_stream_is_misdelivery() {
    let mut all = frames(&["aaaa", "bbbb"]);
    let last = all[1].len() - 33;
    all[1][last] ^= 1;
    assert_eq!(verdict(Some(STREAM), &all), Faults { corrupted: 1, ..Faults::default() });
    let other = Stream { client: 8, connection: 3 };
    let all = frames(&["a", "b"]);
    assert_eq!(verdict(Some(other), &all), Faults { misdelivered: 2, ..Faults::default() });
    assert_eq!(verdict(None, &all), Faults::default());
}

#[test]
fn bytes_that_are_no_frame_are_told_at_once() {
    let rows: [(&[u8], Option<&str>); 4] = [
        (b"AM", None),
        (b"HT", Some("bytes that are no frame: \"HT\"")),
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            Some("bytes that are no frame: \"HTTP/1.1 400 Bad Request\\r\\n\""),
        ),
        (
            b"AMBFxxxx................................\xff\xff\xff\xff",
            Some("bytes that are no frame: kind 2021161080"),
        ),
    ];
    for (bytes, want) in rows {
        let told = decode(&mut BytesMut::from(bytes)).map(|f| f.is_some());
        assert_eq!(told.as_ref().err().map(ToString::to_string).as_deref(), want, "{bytes:?}");
    }
    let mut long = frames(&["a"]).remove(0);
    long[40..44].copy_from_slice(&u32::MAX.to_be_bytes());
    let told = decode(&mut BytesMut::from(&long[..])).unwrap_err();
    assert_eq!(told.to_string(), "bytes that are no frame: a payload of 4294967295 bytes");
}

#[track_caller]
fn check(row: &str, order: &[usize], want: Faults) {
    let all = frames(&["a", "b", "c", "d"]);
    let arrived: Vec<Vec<u8>> = order.iter().map(|n| all[*n].clone()).collect();
    assert_eq!(verdict(Some(STREAM), &arrived), want, "{row}");
}

fn verdict(expected: Option<Stream>, arrived: &[Vec<u8>]) -> Faults {
    let mut verifier = Verifier::new(expected);
    let mut buffer = BytesMut::from(&arrived.concat()[..]);
    while let Some(frame) = decode(&mut buffer).unwrap() {
        verifier.accept(&frame);
    }
    verifier.report().faults
}

fn frames(payloads: &[&str]) -> Vec<Vec<u8>> {
    let mut sequencer = Sequencer::new(STREAM);
    let encode = |(n, payload): (usize, &&str)| {
        let mut out = BytesMut::new();
        sequencer.encode(Kind::Data, n as u64 * 10, payload.as_bytes(), &mut out);
        out.to_vec()
    };
    payloads.iter().enumerate().map(encode).collect()
}
