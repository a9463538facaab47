//! What an HTTP/1.1 client says about where its messages end, checked before hyper reads it.
//!
//! hyper settles contradictions quietly: of Transfer-Encoding and Content-Length it keeps the first, of two equal
//! lengths one. Whoever stands before or behind us may settle them otherwise, so such a message is refused. This
//! follows the framing of messages and nothing else; what it cannot follow it refuses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ambit_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::stream::Stream;
use crate::terminate::Course;

#[cfg(test)]
mod tests;

/// Names of up to this many bytes are told apart; longer ones frame nothing.
const NAME_BYTES: usize = 18;

/// Longest line of a chunk's size or of a trailer, in bytes.
const CHUNK_LINE_BYTES_MAX: u32 = 4096;

/// Where a message stands.
#[derive(Debug, Clone)]
enum At {
    /// In its head.
    Head(Head),
    /// In a body with so many bytes left.
    Sized(u64),
    /// In the line with a chunk's size.
    Size(Size),
    /// In a chunk with so many bytes left.
    Chunk(u64),
    /// Before the end of line behind a chunk.
    ChunkEnd { after_return: bool },
    /// In the lines behind the last chunk: bytes of this line, and of all.
    Trailers { line: u32, all: u32, after_return: bool },
    /// Behind a request for another protocol: nothing is followed any more.
    Other,
}

#[derive(Debug, Clone, Default)]
struct Head {
    /// Lines that have ended.
    lines: u32,
    /// Bytes of this line so far.
    bytes: u32,
    after_return: bool,
    in_value: bool,
    name: [u8; NAME_BYTES],
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    reads_length: bool,
    has_digits: bool,
}

#[derive(Debug, Clone, Default)]
struct Size {
    size: u64,
    digits: u32,
    bytes: u32,
    in_extension: bool,
    after_return: bool,
}

/// Follows messages as their bytes arrive.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    at: At,
    /// Heads that have ended.
    heads: u64,
}

impl Default for Framing {
    fn default() -> Self {
        Self { at: At::Head(Head::default()), heads: 0 }
    }
}

/// What a client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The first byte of a message.
    Idle,
    /// The rest of this head, by its number.
    Head(u64),
}

impl Framing {
    /// Follows some bytes.
    ///
    /// # Errors
    /// How many of them come before the one that cannot stand there.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            let left = bytes.len() - at;
            match &mut self.at {
                At::Other => return Ok(()),
                At::Sized(missing) | At::Chunk(missing) => {
                    let part = u64::try_from(left).unwrap_or(u64::MAX).min(*missing);
                    *missing -= part;
                    at += usize::try_from(part).unwrap_or(left);
                    self.end_of_part();
                }
                At::Head(_) | At::Size(_) | At::ChunkEnd { .. } | At::Trailers { .. } => {
                    self.byte(bytes[at]).ok_or(at)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether the bytes that come next belong to a head.
    fn is_in_head(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// What is waited for where no request is under way; none if it is for others to say.
    fn wait(&self) -> Option<Wait> {
        match &self.at {
            At::Head(head) if head.is_begun() => Some(Wait::Head(self.heads)),
            At::Head(_) => Some(Wait::Idle),
            At::Sized(_)
            | At::Size(_)
            | At::Chunk(_)
            | At::ChunkEnd { .. }
            | At::Trailers { .. }
            | At::Other => None,
        }
    }

    fn next_message(&mut self) {
        self.at = At::Head(Head::default());
    }

    fn end_of_part(&mut self) {
        match self.at {
            At::Sized(0) => self.next_message(),
            At::Chunk(0) => self.at = At::ChunkEnd { after_return: false },
            At::Sized(_)
            | At::Chunk(_)
            | At::Head(_)
            | At::Size(_)
            | At::ChunkEnd { .. }
            | At::Trailers { .. }
            | At::Other => {}
        }
    }

    /// Follows one byte of a line; none if it cannot stand there.
    fn byte(&mut self, byte: u8) -> Option<()> {
        match &mut self.at {
            At::Head(head) => {
                if let Some(next) = head.byte(byte)? {
                    self.at = next;
                    self.heads += 1;
                }
            }
            At::Size(size) => {
                if let Some(next) = size.byte(byte)? {
                    self.at = next;
                }
            }
            At::ChunkEnd { after_return } => match (byte, *after_return) {
                (b'\r', false) => *after_return = true,
                (b'\n', true) => self.at = At::Size(Size::default()),
                _ => return None,
            },
            At::Trailers { line, all, after_return } => {
                *all += 1;
                match (byte, std::mem::replace(after_return, byte == b'\r')) {
                    (b'\n', true) if *line == 0 => self.next_message(),
                    (b'\n', true) => *line = 0,
                    (b'\n', false) | (_, true) => return None,
                    (b'\r', false) => {}
                    (_, false) if *all > CHUNK_LINE_BYTES_MAX => return None,
                    (_, false) => *line += 1,
                }
            }
            At::Sized(_) | At::Chunk(_) | At::Other => {}
        }
        Some(())
    }
}

impl Head {
    /// Whether anything of it has come; empty lines before it are nothing.
    fn is_begun(&self) -> bool {
        self.lines > 0 || self.bytes > 0
    }

    /// Follows one byte: where the message stands if its head is over, none if the byte cannot stand there.
    fn byte(&mut self, byte: u8) -> Option<Option<At>> {
        match (byte, std::mem::replace(&mut self.after_return, byte == b'\r')) {
            (b'\n', true) => return self.end_of_line(),
            // A line feed alone ends a line for some and not for others.
            (b'\n', false) | (_, true) => return None,
            (b'\r', false) => return Some(None),
            (_, false) => {}
        }
        if self.lines > 0 {
            self.field_byte(byte)?;
        }
        self.bytes = self.bytes.saturating_add(1);
        Some(None)
    }

    fn field_byte(&mut self, byte: u8) -> Option<()> {
        if !self.in_value {
            if byte == b':' {
                self.in_value = true;
                return self.end_of_name();
            }
            let at = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            if let Some(place) = self.name.get_mut(at) {
                *place = byte.to_ascii_lowercase();
            }
        } else if self.reads_length {
            match byte {
                b' ' | b'\t' => {}
                b'0'..=b'9' => {
                    self.has_digits = true;
                    let length = self.length.unwrap_or(0).checked_mul(10)?;
                    self.length = Some(length.checked_add(u64::from(byte - b'0'))?);
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn end_of_name(&mut self) -> Option<()> {
        let end = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        match self.name.get(..end).unwrap_or_default() {
            b"content-length" => {
                let is_first = self.length.is_none() && !self.chunked;
                self.reads_length = true;
                self.has_digits = false;
                is_first.then(|| self.length = Some(0))
            }
            b"transfer-encoding" => {
                let is_first = self.length.is_none() && !self.chunked;
                self.chunked = true;
                is_first.then_some(())
            }
            b"upgrade" => {
                self.upgrade = true;
                Some(())
            }
            _ => Some(()),
        }
    }

    fn end_of_line(&mut self) -> Option<Option<At>> {
        if self.reads_length && !self.has_digits {
            return None;
        }
        if self.bytes == 0 {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            return Some((self.lines > 0).then(|| self.body()));
        }
        self.lines += 1;
        (self.bytes, self.in_value, self.reads_length) = (0, false, false);
        self.name = [0; NAME_BYTES];
        Some(None)
    }

    fn body(&self) -> At {
        match (self.upgrade, self.chunked, self.length) {
            // Such a request has no body, and what follows it is of the other protocol, or comes to nothing.
            (true, false, None | Some(0)) => At::Other,
            (_, true, _) => At::Size(Size::default()),
            (_, false, None | Some(0)) => At::Head(Self::default()),
            (_, false, Some(length)) => At::Sized(length),
        }
    }
}

impl Size {
    /// As [`Head::byte`].
    fn byte(&mut self, byte: u8) -> Option<Option<At>> {
        self.bytes += 1;
        match (byte, std::mem::replace(&mut self.after_return, byte == b'\r')) {
            (b'\n', true) if self.digits == 0 => return None,
            (b'\n', true) if self.size == 0 => {
                return Some(Some(At::Trailers { line: 0, all: 0, after_return: false }));
            }
            (b'\n', true) => return Some(Some(At::Chunk(self.size))),
            (b'\n', false) | (_, true) => return None,
            (b'\r', false) => {}
            (_, false) if self.bytes > CHUNK_LINE_BYTES_MAX => return None,
            (_, false) if self.in_extension => {}
            (b';', false) if self.digits > 0 => self.in_extension = true,
            (_, false) => {
                let digit = char::from(byte).to_digit(16)?;
                self.digits += 1;
                self.size = (self.digits <= 15).then(|| self.size << 4 | u64::from(digit))?;
            }
        }
        Some(None)
    }
}

/// A client's stream of which only sound framing is read, and none of which is waited for longer than it may take.
#[derive(Debug)]
pub(crate) struct Framed {
    stream: Stream,
    framing: Framing,
    course: Arc<Course>,
    /// Nothing more is read.
    is_over: bool,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// What the timer is for, while it runs.
    waits: Option<Wait>,
    timer: Option<Pin<Box<Sleep>>>,
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Framed {
    /// From the first byte of a connection on. A head may take `head_timeout` from its first byte on, and a connection
    /// without requests lasts `idle_timeout`.
    pub(crate) fn new(
        stream: Stream,
        course: Arc<Course>,
        head_timeout: Duration,
        idle_timeout: Duration,
    ) -> Self {
        let (framing, is_over) = (Framing::default(), false);
        let (waits, timer, cut) = (None, None, None);
        Self { stream, framing, course, is_over, head_timeout, idle_timeout, waits, timer, cut }
    }

    /// Nothing has come: how much longer that may go on.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_busy = self.course.is_under_way(cx) || self.course.cut().is_some();
        let wait = self.framing.wait().filter(|_| !is_busy);
        let Some(wait) = wait else {
            self.waits = None;
            return Poll::Pending;
        };
        let within = match wait {
            Wait::Idle => self.idle_timeout,
            Wait::Head(_) => self.head_timeout,
        };
        let due = Instant::from_std(clock::monotonic()) + within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if self.waits != Some(wait) {
            self.waits = Some(wait);
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        self.is_over = true;
        match wait {
            // An end between messages, as if the client had left.
            Wait::Idle => Poll::Ready(Ok(())),
            Wait::Head(_) => {
                metrics::counter!("ambit_waypoint_protocol_violations_total", "kind" => "slow_head")
                    .increment(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Whether the connection was upgraded and has to end. Reading and writing ask both, because either may be all
    /// that still goes on.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(token) = self.course.cut() else { return false };
        let cut = self.cut.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
        cut.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.is_over {
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, into) {
            Poll::Ready(read) => read?,
            Poll::Pending => return this.poll_late(cx),
        }
        let Err(sound) = this.framing.follow(&into.filled()[before..]) else { return Poll::Ready(Ok(())) };
        this.is_over = true;
        metrics::counter!("ambit_waypoint_protocol_violations_total", "kind" => "framing").increment(1);
        into.set_filled(before + sound);
        if this.framing.is_in_head() {
            // Can stand in no head, so that hyper itself answers 400 and closes.
            into.put_slice(&[0]);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
