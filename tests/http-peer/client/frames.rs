//! Frames of HTTP/2 as no library writes them: whatever a peer may put on the wire, and as much of an answer as tells
//! how it ended.

use std::collections::BTreeMap;

/// DATA.
pub(super) const DATA: u8 = 0;
/// HEADERS.
pub(super) const HEADERS: u8 = 1;
/// PRIORITY.
pub(super) const PRIORITY: u8 = 2;
/// RST_STREAM.
pub(super) const RST_STREAM: u8 = 3;
/// SETTINGS.
pub(super) const SETTINGS: u8 = 4;
/// PING.
pub(super) const PING: u8 = 6;
/// GOAWAY.
pub(super) const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub(super) const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub(super) const CONTINUATION: u8 = 9;

/// The last frame of a message.
pub(super) const END_STREAM: u8 = 1;
/// The last frame of a head.
pub(super) const END_HEADERS: u8 = 4;
/// Padding follows.
pub(super) const PADDED: u8 = 8;

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
/// Most bytes of one frame that every receiver takes.
const FRAME_BYTES_MAX: usize = 16_384;

/// What a client says first, its SETTINGS included.
pub(super) fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// One frame, however wrong.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head in as many frames as it takes; `flags` are those of the first beside END_HEADERS.
pub(super) fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(FRAME_BYTES_MAX).peekable();
    let first = parts.next().unwrap_or_default();
    let end = |is_last: bool| if is_last { END_HEADERS } else { 0 };
    let mut all = frame(HEADERS, flags | end(parts.peek().is_none()), stream, first);
    while let Some(part) = parts.next() {
        all.extend(frame(CONTINUATION, end(parts.peek().is_none()), stream, part));
    }
    all
}

/// A field as HPACK's literal that nobody keeps, without Huffman coding: every byte is as it was given.
pub(super) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut all = vec![0];
    for part in [name, value] {
        integer(&mut all, 0, 7, part.len());
        all.extend_from_slice(part);
    }
    all
}

/// An integer of HPACK behind the bits that are set already.
pub(super) fn integer(into: &mut Vec<u8>, bits: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    let low = |value: usize| u8::try_from(value & 0xff).unwrap_or_default();
    if value < most {
        return into.push(bits | low(value));
    }
    into.push(bits | low(most));
    let mut left = value - most;
    while left >= 128 {
        into.push(low(left % 128) | 128);
        left /= 128;
    }
    into.push(low(left));
}

/// The head of a request.
pub(super) fn request(method: &str, authority: &str, path: &str) -> Vec<u8> {
    [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]
        .map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
        .concat()
}

/// What came from a server.
#[derive(Debug, Default)]
pub(super) struct Got {
    held: Vec<u8>,
    /// Statuses of final answers by stream.
    pub(super) statuses: BTreeMap<u32, u16>,
    /// Codes of RST_STREAM by stream.
    pub(super) resets: BTreeMap<u32, u32>,
    /// The code of the first GOAWAY that says more than goodbye, or of the first.
    pub(super) goaway: Option<u32>,
}

impl Got {
    /// Takes what came; frames that are not whole wait for the rest.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(header) = self.held.get(at..at + HEADER_BYTES) {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, stream) = (header[3], word(&header[5..]));
            let Some(payload) = self.held.get(at + HEADER_BYTES..at + HEADER_BYTES + length) else { break };
            match kind {
                HEADERS => {
                    if let Some(status) = status(payload).filter(|status| *status >= 200) {
                        self.statuses.entry(stream).or_insert(status);
                    }
                }
                RST_STREAM => drop(self.resets.insert(stream, word(payload))),
                GOAWAY if self.goaway.is_none_or(|code| code == 0) => {
                    self.goaway = Some(word(payload.get(4..).unwrap_or_default()));
                }
                _ => {}
            }
            at += HEADER_BYTES + length;
        }
        self.held.drain(..at);
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// The status at the beginning of an answer's head; none of trailers.
fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    // The size of the table may be said first.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = if first & 0x1f == 0x1f { rest.get(1..)? } else { rest };
    }
    match *block.first()? {
        indexed @ 0x88..=0x8e => {
            [200, 204, 206, 304, 400, 404, 500].get(usize::from(indexed - 0x88)).copied()
        }
        // A literal whose name is one of those entries.
        0x08 | 0x18 | 0x48..=0x4e => digits(block.get(1..)?),
        _ => None,
    }
}

/// Three digits, as they are or in HPACK's Huffman code: `0` to `2` have five bits there, the others six.
fn digits(value: &[u8]) -> Option<u16> {
    let (length, is_huffman) = (usize::from(value.first()? & 0x7f), value.first()? & 0x80 != 0);
    let bytes = value.get(1..=length)?;
    if !is_huffman {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let bits = bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let (mut left, mut number) = (u32::try_from(bytes.len()).ok()? * 8, 0);
    for _ in 0..3 {
        let five = bits >> left.checked_sub(5)? & 31;
        if five < 3 {
            left -= 5;
            number = number * 10 + five;
        } else {
            left = left.checked_sub(6)?;
            number = number * 10 + (bits >> left & 63).checked_sub(22)?;
        }
    }
    u16::try_from(number).ok()
}
