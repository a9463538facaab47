//! Protobuf by hand: tag, then varint or length and bytes. Nothing here knows a schema.

use prost::Message;

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of wire type 0.
pub(crate) fn varint(field: u64, value: u64) -> Vec<u8> {
    [number(field << 3), number(value)].concat()
}

/// A field of wire type 2.
pub(crate) fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [number(field << 3 | 2), number(content.len() as u64), content.to_vec()].concat()
}

/// A message in a field, of the given parts.
pub(crate) fn message<const N: usize>(field: u64, parts: [Vec<u8>; N]) -> Vec<u8> {
    bytes(field, parts.concat())
}

/// An entry of a map from text to text.
pub(crate) fn entry(field: u64, key: &str, value: &str) -> Vec<u8> {
    message(field, [bytes(1, key), bytes(2, value)])
}

/// A `google.protobuf.Any`.
pub(crate) fn any(field: u64, type_url: &str, content: Vec<u8>) -> Vec<u8> {
    message(field, [bytes(1, type_url), bytes(2, content)])
}

/// Bytes of a text such as `0a 01 75`.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// The message encodes to exactly these bytes, and these bytes are read as the message.
#[track_caller]
pub(crate) fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
    name: &str,
    message: &M,
    want: Vec<u8>,
) {
    assert_eq!(message.encode_to_vec(), want, "bytes of {name}");
    assert_eq!(&M::decode(&want[..]).unwrap(), message, "reading {name}");
}
