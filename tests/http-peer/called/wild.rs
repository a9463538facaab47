//! An upstream without manners: it reads requests of HTTP/1.1 with eyes of its own, keeps them as they came, and answers
//! with the bytes that the request itself asks for.
//!
//! `x-peer-answer: PART…`, each part a text in hexadecimal, or `HEX*N` for it so many times; `x-peer-close: 1` ends the
//! connection behind it. `/told` tells what came since the last `/told/reset`.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_runtime::tasks;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::get::hexadecimal;

/// Longest head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Most requests that are kept.
const KEPT_MAX: usize = 10_000;

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    port: u16,
}

/// A request as it came; its bytes as characters of the same numbers.
#[derive(Debug, Clone, Serialize)]
struct Request {
    /// On which connection, counted from the first one.
    connection: u64,
    head: String,
    /// Bytes of the body, without its framing.
    body: usize,
}

#[derive(Debug, Default)]
struct Kept {
    connections: u64,
    requests: Vec<Request>,
    /// Connections that ended within a request, or with something that is none.
    broken: u64,
}

type Shared = Arc<Mutex<Kept>>;

/// Serves until it is ended from outside.
///
/// # Errors
/// If the port cannot be had, or accepting fails for good.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    // Of IPv6 and, as the kernel is set by default, IPv4.
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
    eprintln!("listens at {address}");
    let shared = Shared::default();
    loop {
        let (tcp, _) = listener.accept().await.context("accepting a connection")?;
        let shared = shared.clone();
        tasks::spawn("peer-connection", async move {
            let number = with(&shared, |kept| {
                kept.connections += 1;
                kept.connections
            });
            let mut connection = Connection { tcp, held: Vec::new(), number };
            if connection.serve(&shared).await.is_none() && !connection.held.is_empty() {
                with(&shared, |kept| kept.broken += 1);
            }
        });
    }
}

fn with<T>(shared: &Shared, act: impl FnOnce(&mut Kept) -> T) -> T {
    act(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Connection {
    tcp: TcpStream,
    held: Vec<u8>,
    number: u64,
}

impl Connection {
    /// Serves requests until one asks for the end; none if the other end leaves.
    async fn serve(&mut self, shared: &Shared) -> Option<()> {
        loop {
            let end = self.until(b"\r\n\r\n").await?;
            let head: String = self.held[..end].iter().copied().map(char::from).collect();
            let used = end + 4;
            let body = self.body(used, &head).await?;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !path.starts_with("/told") {
                let request = Request { connection: self.number, head: head.clone(), body };
                with(shared, |kept| {
                    if kept.requests.len() < KEPT_MAX {
                        kept.requests.push(request);
                    }
                });
            }
            let answer = match path.as_str() {
                "/told" => told(shared),
                "/told/reset" => {
                    with(shared, |kept| *kept = Kept { connections: kept.connections, ..Kept::default() });
                    told(shared)
                }
                _ => match line(&head, "x-peer-answer") {
                    Some(parts) => made(parts)?,
                    None if head.starts_with("HEAD ") => {
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec()
                    }
                    None => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
                },
            };
            self.tcp.write_all(&answer).await.ok()?;
            if line(&head, "x-peer-close").is_some() {
                self.tcp.shutdown().await.ok()?;
                return Some(());
            }
        }
    }

    /// Reads until some bytes have come; where they begin.
    async fn until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.held.windows(mark.len()).position(|part| part == mark) {
                return Some(at);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 << 10];
        let read = self.tcp.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        self.held.extend_from_slice(&piece[..read]);
        (self.held.len() <= HEAD_BYTES_MAX).then_some(())
    }

    /// Takes head and body off of what is held; how long the body was.
    async fn body(&mut self, used: usize, head: &str) -> Option<usize> {
        self.held.drain(..used);
        let mut all = 0;
        if line(head, "transfer-encoding").is_none() {
            let length = line(head, "content-length").map_or(Some(0), |length| length.parse().ok())?;
            self.skip(length).await?;
            return Some(length);
        }
        loop {
            let end = self.until(b"\r\n").await?;
            let text = String::from_utf8_lossy(&self.held[..end]).into_owned();
            let size = usize::from_str_radix(text.split(';').next()?.trim(), 16).ok()?;
            self.held.drain(..end + 2);
            if size == 0 {
                break;
            }
            all += size;
            self.skip(size.checked_add(2)?).await?;
        }
        // Trailers, to the empty line.
        loop {
            let end = self.until(b"\r\n").await?;
            self.held.drain(..end + 2);
            if end == 0 {
                return Some(all);
            }
        }
    }

    async fn skip(&mut self, mut count: usize) -> Option<()> {
        loop {
            let part = count.min(self.held.len());
            self.held.drain(..part);
            count -= part;
            if count == 0 {
                return Some(());
            }
            self.more().await?;
        }
    }
}

/// The value of a head's first line of that name.
fn line<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn made(parts: &str) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for part in parts.split_whitespace() {
        let (text, times) = part.split_once('*').unwrap_or((part, "1"));
        all.extend(hexadecimal(text).ok()?.repeat(times.parse().ok()?));
    }
    Some(all)
}

fn told(shared: &Shared) -> Vec<u8> {
    let body = with(shared, |kept| {
        json!({"connections": kept.connections, "broken": kept.broken, "requests": kept.requests}).to_string()
    });
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
