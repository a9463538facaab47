//! Streams out of captures, and what counts as TLS.

use super::*;

/// A capture of segments from 10.0.0.1:1000 to 10.0.0.2 at a port: sequence number, SYN, payload.
fn capture(port: u16, segments: &[(u32, bool, &[u8])]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1];
    file.resize(FILE_HEAD_BYTES, 0);
    for (sequence, syn, payload) in segments {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        let whole = u16::try_from(40 + payload.len()).unwrap();
        frame.extend([0x45, 0]);
        frame.extend(whole.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(1000u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x50, if *syn { 2 } else { 16 }, 0, 0, 0, 0, 0, 0]);
        frame.extend(*payload);
        // What Ethernet pads short frames with is not payload.
        frame.resize(frame.len().max(60), 0xee);
        let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
        file.extend([0; 8]);
        file.extend(length);
        file.extend(length);
        file.extend(frame);
    }
    file
}

#[track_caller]
fn check(segments: &[(u32, bool, &[u8])], want: &[&str]) {
    let file = capture(15008, segments);
    let got: Vec<String> =
        streams(&file, 15008).iter().map(|s| String::from_utf8(s.bytes.clone()).unwrap()).collect();
    assert_eq!(got, want);
    // A file that is still being written loses at most its last packet.
    for length in 0..file.len() {
        let _ = streams(&file[..length], 15008);
    }
}

#[test]
fn segments_are_put_in_order_up_to_the_first_gap() {
    check(&[(7, true, b""), (8, false, b"ab"), (10, false, b"cd")], &["abcd"]);
    check(&[(7, true, b""), (10, false, b"cd"), (8, false, b"ab"), (8, false, b"abc")], &["abcd"]);
    check(&[(7, true, b""), (8, false, b"ab"), (11, false, b"d")], &["ab"]);
    check(&[(u32::MAX, true, b""), (0, false, b"ab"), (2, false, b"c")], &["abc"]);
    // Without its beginning nobody can say where a record starts.
    check(&[(8, false, b"ab")], &[]);
    assert!(streams(&capture(80, &[(7, true, b""), (8, false, b"ab")]), 15008).is_empty());
    assert!(streams(b"no capture", 15008).is_empty());
}

#[test]
fn only_tls_records_count_as_tls() {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let check = |bytes: &[u8], want: (usize, usize, bool)| {
        let records = Stream { from: address, to: address, bytes: bytes.to_vec() }.records();
        assert_eq!((records.handshake, records.encrypted, records.other), want, "{bytes:?}");
    };
    let hello = [22, 3, 1, 0, 2, 1, 0];
    let ciphered = [23, 3, 3, 0, 1, 9];
    check(&hello, (1, 0, false));
    check(&[&hello[..], &[20, 3, 3, 0, 1, 1], &ciphered, &ciphered].concat(), (2, 2, false));
    check(&[&hello[..], &ciphered[..5]].concat(), (1, 1, false));
    check(&[&hello[..], b"GET / HTTP/1.1"].concat(), (1, 0, true));
    check(b"GET / HTTP/1.1", (0, 0, true));
    check(&[23, 3, 3, 0xff, 0xff, 0], (0, 1, true));
}
