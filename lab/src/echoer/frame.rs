//! Frames and what can be wrong with their order: encoding, decoding, verifying. Pure.
//!
//! A frame is a 44-byte header (magic, kind, client, connection, sequence, time, length), the payload, and the
//! 32-byte chain: BLAKE3 over the chain before it, the header and the payload.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Begins every frame.
const MAGIC: u32 = 0x414d_4246;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 44;
/// Bytes behind it.
pub const CHAIN_BYTES: usize = 32;
/// Longest payload of one frame, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Missing sequence numbers that are remembered, to tell a late frame from a repeated one.
const MISSING_MAX: usize = 1024;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first of each side; the server's holds its name.
    Hello,
    /// Bytes; the server sends them back.
    Data,
    /// The last of each side; the server's holds what it saw, a [`Report`].
    End,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Self::Hello => 1,
            Self::Data => 2,
            Self::End => 3,
        }
    }

    fn of(code: u32) -> Option<Self> {
        [Self::Hello, Self::Data, Self::End].into_iter().find(|k| k.code() == code)
    }
}

/// Which connection of which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    /// The client process; 0 while a server does not know it.
    pub client: u64,
    /// The number of the connection; 0 while a server does not know it.
    pub connection: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// Whose it is.
    pub stream: Stream,
    /// Counts the frames of one direction from 0.
    pub sequence: u64,
    /// When it was sent, in microseconds by the sender's clock; the server sends the client's back.
    pub sent_us: u64,
    /// What it carries.
    pub payload: Bytes,
    chain: [u8; CHAIN_BYTES],
    link: blake3::Hash,
}

/// What went wrong with frames that did arrive, or should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Frames that never came although later ones did.
    pub lost: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames that came after later ones.
    pub reordered: u64,
    /// Frames whose chain does not fit.
    pub corrupted: u64,
    /// Frames of another connection, or from a server that was not expected.
    pub misdelivered: u64,
}

impl Faults {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.misdelivered += other.misdelivered;
    }
}

/// What a server saw of one connection, told in its last frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Frames that arrived.
    pub frames: u64,
    /// Payload bytes of data frames that arrived.
    pub bytes: u64,
    /// What was wrong with them.
    pub faults: Faults,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no frame: {what}")]
pub struct NoFrame {
    /// What they have instead.
    pub what: String,
}

/// Encodes the frames of one direction.
#[derive(Debug, Clone, Default)]
pub struct Sequencer {
    /// Whose frames they are.
    pub stream: Stream,
    next: u64,
    chain: [u8; CHAIN_BYTES],
}

impl Sequencer {
    /// The first frame of this stream comes next.
    pub fn new(stream: Stream) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Appends the next frame to `out`.
    pub fn encode(&mut self, kind: Kind, sent_us: u64, payload: &[u8], out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + payload.len() + CHAIN_BYTES);
        let begin = out.len();
        out.put_u32(MAGIC);
        out.put_u32(kind.code());
        out.put_u64(self.stream.client);
        out.put_u64(self.stream.connection);
        out.put_u64(self.next);
        out.put_u64(sent_us);
        out.put_u32(u32::try_from(payload.len()).expect("payloads are at most PAYLOAD_BYTES_MAX"));
        out.put_slice(payload);
        let link = blake3::hash(&out[begin..]);
        self.chain = chained(&self.chain, &link);
        out.put_slice(&self.chain);
        self.next += 1;
    }
}

/// Takes the first whole frame off the buffer; none if more bytes are needed.
///
/// # Errors
/// [`NoFrame`] if it does not begin with one.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, NoFrame> {
    let Some(mut header) = buffer.get(..HEADER_BYTES) else { return check_magic(buffer).map(|()| None) };
    check_magic(buffer)?;
    header.advance(4);
    let code = header.get_u32();
    let kind = Kind::of(code).ok_or_else(|| NoFrame { what: format!("kind {code}") })?;
    let stream = Stream { client: header.get_u64(), connection: header.get_u64() };
    let (sequence, sent_us) = (header.get_u64(), header.get_u64());
    let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Err(NoFrame { what: format!("a payload of {length} bytes") });
    }
    if buffer.len() < HEADER_BYTES + length + CHAIN_BYTES {
        return Ok(None);
    }
    let mut whole = buffer.split_to(HEADER_BYTES + length + CHAIN_BYTES).freeze();
    let mut chain = [0; CHAIN_BYTES];
    chain.copy_from_slice(&whole[HEADER_BYTES + length..]);
    whole.truncate(HEADER_BYTES + length);
    let link = blake3::hash(&whole);
    Ok(Some(Frame { kind, stream, sequence, sent_us, payload: whole.slice(HEADER_BYTES..), chain, link }))
}

/// Garbage is told as soon as it shows, not when enough of it has come.
fn check_magic(buffer: &[u8]) -> Result<(), NoFrame> {
    let magic = MAGIC.to_be_bytes();
    let shown = buffer.len().min(magic.len());
    if buffer[..shown] == magic[..shown] {
        return Ok(());
    }
    let begin = String::from_utf8_lossy(&buffer[..buffer.len().min(32)]).into_owned();
    Err(NoFrame { what: format!("{begin:?}") })
}

fn chained(before: &[u8; CHAIN_BYTES], link: &blake3::Hash) -> [u8; CHAIN_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(link.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Judges the frames of one direction, in the order they arrive.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    /// Whose frames are expected; none takes the first one's word.
    expected: Option<Stream>,
    next: u64,
    chain: [u8; CHAIN_BYTES],
    missing: BTreeSet<u64>,
    report: Report,
}

impl Verifier {
    /// Expects the first frame of this stream.
    pub fn new(expected: Option<Stream>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Takes a frame into account.
    pub fn accept(&mut self, frame: &Frame) {
        self.report.frames += 1;
        if frame.kind == Kind::Data {
            self.report.bytes += frame.payload.len() as u64;
        }
        let expected = *self.expected.get_or_insert(frame.stream);
        // A server that speaks first does not know yet whom it speaks to.
        let unknown_yet = frame.kind == Kind::Hello && frame.stream == Stream::default();
        if frame.stream != expected && !unknown_yet {
            self.report.faults.misdelivered += 1;
            return;
        }
        if frame.sequence < self.next {
            self.accept_late(frame.sequence);
            return;
        }
        if frame.sequence > self.next {
            self.report.faults.lost += frame.sequence - self.next;
            let room = MISSING_MAX.saturating_sub(self.missing.len());
            self.missing.extend((self.next..frame.sequence).take(room));
        } else if chained(&self.chain, &frame.link) != frame.chain {
            self.report.faults.corrupted += 1;
        }
        self.next = frame.sequence + 1;
        self.chain = frame.chain;
    }

    fn accept_late(&mut self, sequence: u64) {
        if self.missing.remove(&sequence) {
            self.report.faults.lost -= 1;
            self.report.faults.reordered += 1;
        } else {
            self.report.faults.duplicated += 1;
        }
    }

    /// What was seen so far.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

#[cfg(test)]
mod tests;
