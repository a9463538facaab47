//! What a packet capture shows of TCP connections, and whether it is TLS and nothing else. Pure.
//!
//! Reads only what tcpdump writes on an Ethernet device here: classic pcap in either byte order, IPv4 and IPv6
//! without extension headers. Whatever else is in the file is passed over.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes before the first packet of a capture.
const FILE_HEAD_BYTES: usize = 24;
/// Bytes before each packet.
const PACKET_HEAD_BYTES: usize = 16;
/// The most a TLS record may carry: 2^14 and what encryption adds (RFC 8446 section 5.2).
const RECORD_BYTES_MAX: usize = (1 << 14) + 256;

/// What one end of a connection sent, from its first byte on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// To whom.
    pub(super) to: SocketAddr,
    /// What, as far as it was captured without a gap.
    pub(super) bytes: Vec<u8>,
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// TLS records of a handshake that is still in clear.
    pub(super) handshake: usize,
    /// Encrypted TLS records.
    pub(super) encrypted: usize,
    /// Whether there is a byte that belongs to no TLS record.
    pub(super) other: bool,
}

impl Stream {
    /// Takes the stream apart into TLS records; the last one may be incomplete.
    pub(super) fn records(&self) -> Records {
        let mut records = Records::default();
        let mut rest = self.bytes.as_slice();
        while let [kind, major, minor, high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            match kind {
                // Change of cipher (kept for middleboxes), alert, handshake.
                20..=22 if *major == 3 => records.handshake += 1,
                // Application data: in TLS 1.3 everything after the hellos.
                23 if (*major, *minor) == (3, 3) => records.encrypted += 1,
                _ => records.other = true,
            }
            records.other |= length > RECORD_BYTES_MAX;
            if records.other {
                return records;
            }
            rest = tail.get(length..).unwrap_or_default();
        }
        records
    }
}

/// One TCP segment.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    payload: &'a [u8],
}

/// One direction of a connection: who sends to whom.
type Ends = (SocketAddr, SocketAddr);
/// Where a direction begins, and its pieces by their distance from there.
type Begun<'a> = (u32, BTreeMap<u32, &'a [u8]>);

/// The streams to and from a port whose first packet is in the capture.
pub(super) fn streams(capture: &[u8], port: u16) -> Vec<Stream> {
    let mut begun: BTreeMap<Ends, Begun<'_>> = BTreeMap::new();
    for segment in packets(capture).into_iter().filter_map(segment) {
        if segment.from.port() != port && segment.to.port() != port {
            continue;
        }
        let ends = (segment.from, segment.to);
        if segment.syn {
            begun.insert(ends, (segment.sequence.wrapping_add(1), BTreeMap::new()));
        } else if let Some((first, parts)) = begun.get_mut(&ends).filter(|_| !segment.payload.is_empty()) {
            let at = segment.sequence.wrapping_sub(*first);
            let longest = parts.entry(at).or_default();
            if segment.payload.len() > longest.len() {
                *longest = segment.payload;
            }
        }
    }
    let joined = begun.into_iter().map(|((from, to), (_, parts))| Stream { from, to, bytes: join(&parts) });
    joined.filter(|stream| !stream.bytes.is_empty()).collect()
}

/// Puts the parts of a stream together up to the first gap.
fn join(parts: &BTreeMap<u32, &[u8]>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for (at, part) in parts {
        let Some(known) = bytes.len().checked_sub(*at as usize) else { break };
        bytes.extend_from_slice(part.get(known..).unwrap_or_default());
    }
    bytes
}

/// The packets of a capture file.
fn packets(capture: &[u8]) -> Vec<&[u8]> {
    let big = match capture.first_chunk::<4>() {
        Some([0xa1, 0xb2, 0xc3, 0xd4]) => true,
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => false,
        Some(_) | None => return Vec::new(),
    };
    let number = |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let mut rest = capture.get(FILE_HEAD_BYTES..).unwrap_or_default();
    let mut packets = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<PACKET_HEAD_BYTES>() {
        let length = number([head[8], head[9], head[10], head[11]]) as usize;
        // The last packet may still be being written.
        let Some((packet, tail)) = tail.split_at_checked(length) else { break };
        packets.push(packet);
        rest = tail;
    }
    packets
}

/// The TCP segment in an Ethernet frame.
fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let network = frame.get(14..)?;
    let (source, destination, transport) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let head = usize::from(network.first()? & 0x0f) * 4;
            let whole = usize::from(u16::from_be_bytes([*network.get(2)?, *network.get(3)?]));
            let address =
                |at: usize| network.get(at..at + 4)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
            (*network.get(9)? == 6).then_some(())?;
            (IpAddr::V4(address(12)?), IpAddr::V4(address(16)?), network.get(head..whole)?)
        }
        [0x86, 0xdd] => {
            let length = usize::from(u16::from_be_bytes([*network.get(4)?, *network.get(5)?]));
            let address =
                |at: usize| network.get(at..at + 16)?.first_chunk::<16>().copied().map(Ipv6Addr::from);
            (*network.get(6)? == 6).then_some(())?;
            (IpAddr::V6(address(8)?), IpAddr::V6(address(24)?), network.get(40..40 + length)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
    let head = usize::from(transport.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddr::new(source, port(0)?),
        to: SocketAddr::new(destination, port(2)?),
        sequence: u32::from_be_bytes(*transport.get(4..8)?.first_chunk::<4>()?),
        syn: transport.get(13)? & 0x02 != 0,
        payload: transport.get(head..)?,
    })
}

#[cfg(test)]
mod tests;
