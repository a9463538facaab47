//! The client's address behind proxies that the operator trusts.
//!
//! `X-Forwarded-For` is written from left to right, and only its right end by trusted hands. `Forwarded` is never
//! read.

use std::net::{IpAddr, SocketAddr};

use super::Headers;

/// The entry of `X-Forwarded-For` that has to be believed is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {from_right} from the right of X-Forwarded-For is no address")]
pub struct Unreadable {
    /// Which, counted from 1.
    pub from_right: u8,
}

/// The client's address: the direct peer's with no trusted hops, else that many entries from the right of
/// `X-Forwarded-For`.
///
/// `trusted_hops` is how many proxies stand before the mesh and append to the header, 0 by default. A shorter header
/// did not come through them, so the direct peer is the client. IPv4-mapped addresses are unwrapped.
///
/// # Errors
/// [`Unreadable`] if the entry is no address (a scoped one such as `fe80::1%eth0` is none): the facts then hold no
/// client address, which refuses.
pub fn remote_address(source: IpAddr, headers: &dyn Headers, trusted_hops: u8) -> Result<IpAddr, Unreadable> {
    let mut entries = 0usize;
    headers.each(HEADER, &mut |line| entries += line.split(|b| *b == b',').count());
    let Some(wanted) = entries.checked_sub(usize::from(trusted_hops)).filter(|_| trusted_hops > 0) else {
        return Ok(source.to_canonical());
    };
    let mut index = 0;
    let mut found = None;
    headers.each(HEADER, &mut |line| {
        for entry in line.split(|b| *b == b',') {
            if index == wanted {
                found = address(entry.trim_ascii());
            }
            index += 1;
        }
    });
    found.map(|ip| ip.to_canonical()).ok_or(Unreadable { from_right: trusted_hops })
}

const HEADER: &str = "x-forwarded-for";

/// An address, in brackets or with a port if some proxy wrote it so.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().filter(is_unscoped).map(|socket| socket.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    plain().or_else(with_port).or_else(bracketed)
}

fn is_unscoped(socket: &SocketAddr) -> bool {
    match socket {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.scope_id() == 0,
    }
}
