//! The kernel's table of the TCP sockets of a network namespace, as `/proc` prints it.
//!
//! It tells of every socket whoever has it, and needs no right but to read.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Its own address; never IPv4-mapped.
    pub local: SocketAddr,
    /// The other end's; none if it cannot be read.
    pub remote: Option<SocketAddr>,
    /// Where it stands.
    pub state: State,
}

/// Where a socket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Both ends are open.
    Established,
    /// It is over, and remembered for a while or not yet let go: TIME_WAIT and CLOSE.
    Over,
    /// It waits for connections.
    Listen,
    /// It is opening or closing.
    Changing,
}

impl Line {
    /// Reads one line; none for the heading and what cannot be read.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (_, local, remote, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let state = match state {
            "01" => State::Established,
            "06" | "07" => State::Over,
            "0A" => State::Listen,
            _ => State::Changing,
        };
        Some(Self { local: end(local)?, remote: end(remote), state })
    }
}

/// The tables of both families of the calling thread's namespace, each cut off after `bytes_max`.
///
/// Blocks for as long as the kernel needs to print: about 10 ms for 10,000 sockets.
///
/// # Errors
/// The system's answer.
pub fn read(bytes_max: u64) -> io::Result<[String; 2]> {
    let table = |name: &str| -> io::Result<String> {
        let mut text = String::new();
        File::open(format!("/proc/thread-self/net/{name}"))?.take(bytes_max).read_to_string(&mut text)?;
        Ok(text)
    };
    // A kernel without IPv6 has no second table.
    let v6 = match table("tcp6") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    Ok([table("tcp")?, v6])
}

fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The table prints addresses as 32-bit words in the machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (i, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_and_its_connection_are_in_the_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(at).unwrap();
        let from = client.local_addr().unwrap();
        let tables = read(u64::MAX).unwrap();
        let lines: Vec<Line> = tables.iter().flat_map(|t| t.lines()).filter_map(Line::parse).collect();
        let is_there = |local, state| lines.iter().any(|line| line.local == local && line.state == state);
        assert!(is_there(at, State::Listen) && is_there(from, State::Established), "{at} {from}");
        assert!(lines.iter().any(|line| line.local == from && line.remote == Some(at)));
    }
}
