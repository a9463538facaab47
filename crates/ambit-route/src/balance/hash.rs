//! Keys of requests and names of endpoints as numbers: the same in every waypoint and release, so that replicas
//! agree.

use std::net::IpAddr;

use ambit_types::Uid;
use xxhash_rust::xxh64::xxh64;

use crate::model::HashKey;
use crate::request::{Headers, Request};

/// The key of a request: the first of these that it has. A header on several lines counts as a whole; its name is in
/// lower case, as it is in a [`crate::Table`].
pub fn hash_of<H: Headers + ?Sized>(
    keys: &[HashKey],
    request: &Request<'_, H>,
    caller: Option<IpAddr>,
) -> Option<u64> {
    keys.iter().find_map(|key| match key {
        HashKey::Header(name) => lines_hash(request.header_lines(name)),
        HashKey::Cookie(name) => request.cookie(name).map(|value| xxh64(value, 0)),
        HashKey::Query(name) => request.query_value(name).map(|value| xxh64(&value, 0)),
        HashKey::SourceAddress => caller.map(address_hash),
    })
}

/// The key of a connection that is passed through unread: of all that a request has it has its caller's address only.
pub fn hash_of_connection(keys: &[HashKey], caller: IpAddr) -> Option<u64> {
    keys.contains(&HashKey::SourceAddress).then(|| address_hash(caller))
}

fn address_hash(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => xxh64(&v4.octets(), 0),
        IpAddr::V6(v6) => xxh64(&v6.octets(), 0),
    }
}

fn lines_hash<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    lines.fold(None, |seed, line| Some(xxh64(line, seed.unwrap_or(0))))
}

/// The name of an endpoint as a number.
pub(super) fn name_hash(uid: &Uid) -> u64 {
    xxh64(uid.as_str().as_bytes(), 0)
}

/// A score for a uniform hash, such that the highest of several is each one's with a chance by its weight.
pub(super) fn weighted_score(hash: u64, weight: u64) -> f64 {
    // 53 bits are what a float holds exactly; half a step keeps the logarithm finite.
    let (bits, steps) = ((hash >> 11) as f64, (1_u64 << 53) as f64);
    let unit = (bits + 0.5) / steps;
    -(weight as f64) / unit.ln()
}
