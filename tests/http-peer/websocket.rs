//! RFC 6455, as little as two test peers need: whole frames, no extensions, no fragments.

use std::io;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest payload that is read, in bytes.
const PAYLOAD_MAX: u64 = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn of(code: u8) -> io::Result<Self> {
        let all = [Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];
        let found = all.into_iter().find(|kind| kind.code() == code);
        found.ok_or_else(|| io::Error::other(format!("a frame of kind {code}, which we do not speak")))
    }
}

/// What a server answers to a client's key (section 4.2.2).
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Reads one frame, unmasked.
///
/// # Errors
/// What the stream says, or that the frame is fragmented, too long or of an unknown kind.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Kind, Bytes)> {
    let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
    if first & 0xf0 != 0x80 {
        return Err(io::Error::other(format!("a frame that begins with {first:#x}: fragment or extension")));
    }
    let kind = Kind::of(first & 0x0f)?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if length > PAYLOAD_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes, more than {PAYLOAD_MAX}")));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
    stream.read_exact(&mut payload).await?;
    apply(mask, &mut payload);
    Ok((kind, payload.into()))
}

/// Writes one frame; a client's is masked, always with the same mask: there is no cache to fool in a test.
///
/// # Errors
/// What the stream says.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    payload: &[u8],
    is_client: bool,
) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | kind.code());
    let mask_bit = if is_client { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..126 => frame.push(mask_bit | u8::try_from(short).unwrap_or_default()),
        middle @ 126..0x1_0000 => {
            frame.push(mask_bit | 126);
            frame.extend_from_slice(&u16::try_from(middle).unwrap_or_default().to_be_bytes());
        }
        long => {
            frame.push(mask_bit | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = if is_client { [0x5a, 0xc3, 0x19, 0x7e] } else { [0; 4] };
    if is_client {
        frame.extend_from_slice(&mask);
    }
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply(mask, &mut frame[start..]);
    stream.write_all(&frame).await?;
    stream.flush().await
}

fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    if mask == [0; 4] {
        return;
    }
    bytes.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}
