//! Only what was sealed, under the label it was sealed with, opens; everything else is refused and nothing panics.

use proptest::prelude::*;

use super::*;

const OWNER: &str = "Kubernetes/node1";
const LABEL: Label<'static> = Label { kind: Kind::State, owner: OWNER, number: 7 };

fn key(byte: u8) -> Key {
    Key::new(&[byte; KEY_BYTES])
}

/// Any message will do.
fn sealed(content: &str) -> Vec<u8> {
    seal(&key(1), [9; NONCE_BYTES], &LABEL, &content.to_owned()).expect("it is short")
}

fn opened(bytes: Vec<u8>) -> Result<String, Refused> {
    let plain = open(&key(1), &LABEL, bytes)?;
    Ok(String::decode(&**plain).expect("it was encoded by us"))
}

#[test]
fn what_was_sealed_opens() {
    for content in ["", "x", &"long ".repeat(10_000)] {
        assert_eq!(opened(sealed(content)).as_deref(), Ok(content));
    }
}

#[test]
fn nothing_of_the_content_stands_in_the_file() {
    let bytes = sealed("a private key");
    assert!(!bytes.windows(7).any(|window| window == b"private"));
}

#[test]
fn files_of_this_format_are_read_by_every_later_program() {
    // The head, byte for byte; a change of it is a new version.
    let head = b"ambseal\n\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x10Kubernetes/node1";
    let bytes = sealed("state");
    assert_eq!(bytes[..head.len()], head[..]);
    assert_eq!(bytes[head.len()..head.len() + NONCE_BYTES], [9; NONCE_BYTES]);
    assert_eq!(bytes.len(), head.len() + NONCE_BYTES + "state".to_owned().encoded_len() + TAG_BYTES);
}

#[test]
fn other_labels_and_keys_do_not_open_it() {
    let rows: [(&str, Key, Label<'_>, Refused); 4] = [
        ("another key", key(2), LABEL, Refused::Altered),
        ("another kind", key(1), Label { kind: Kind::Mark, ..LABEL }, Refused::Kind),
        ("another number", key(1), Label { number: 8, ..LABEL }, Refused::Renumbered { found: 7 }),
        (
            "another node",
            key(1),
            Label { owner: "Kubernetes/node2", ..LABEL },
            Refused::Foreign { found: OWNER.to_owned(), own: "Kubernetes/node2".to_owned() },
        ),
    ];
    for (row, key, label, why) in rows {
        assert_eq!(open(&key, &label, sealed("state")).map(drop), Err(why), "row {row}");
    }
}

#[test]
fn a_head_that_lies_does_not_help() {
    let node2 = Label { owner: "Kubernetes/node2", ..LABEL };
    let rows: [(&str, usize, u8, Label<'_>); 3] = [
        ("kind", 10, 2, Label { kind: Kind::Mark, ..LABEL }),
        ("number", 18, 8, Label { number: 8, ..LABEL }),
        ("owner", 36, b'2', node2),
    ];
    for (row, at, byte, label) in rows {
        let mut bytes = sealed("state");
        bytes[at] = byte;
        assert_eq!(open(&key(1), &label, bytes).map(drop), Err(Refused::Altered), "row {row}");
    }
}

#[test]
fn no_flipped_bit_is_accepted() {
    let bytes = sealed("workloads, services, policies, keys");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn no_file_cut_short_or_lengthened_is_accepted() {
    let bytes = sealed("state");
    for length in 0..bytes.len() {
        assert!(opened(bytes[..length].to_vec()).is_err(), "{length} bytes of {}", bytes.len());
    }
    assert_eq!(opened([&bytes[..], b"x"].concat()), Err(Refused::Altered));
}

#[test]
fn strangers_are_named_for_what_they_are() {
    let mut newer = sealed("state");
    newer[9] = 2;
    let rows = [
        ("empty", Vec::new(), Refused::Truncated),
        ("a text", b"apiVersion: v1\nkind: Pod\n".to_vec(), Refused::NotSealed),
        ("another format", newer, Refused::Version { found: 2, known: 1 }),
        ("a head alone", sealed("state")[..37].to_vec(), Refused::Truncated),
    ];
    for (row, bytes, why) in rows {
        assert_eq!(opened(bytes), Err(why), "row {row}");
    }
}

#[test]
fn owners_beyond_the_bound_are_not_sealed() {
    let owner = "n".repeat(OWNER_BYTES_MAX + 1);
    let label = Label { owner: &owner, ..LABEL };
    assert!(seal(&key(1), [0; NONCE_BYTES], &label, &()).is_none());
}

#[test]
fn keys_are_not_shown() {
    let key = Key::new(b"a key of thirty-two bytes secret");
    assert!(!format!("{key:?}").contains("secret"));
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(opened(bytes).is_err());
    }

    #[test]
    fn a_good_head_before_any_bytes_is_refused(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
        let head = sealed("")[..37].to_vec();
        prop_assert!(opened([head, rest].concat()).is_err());
    }
}
