//! The question for one name and family as bytes, and what the bytes of an answer say of it. Pure.

use std::net::IpAddr;
use std::time::Duration;

use ambit_types::service::IpFamily;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Addresses that are taken of one answer.
const ADDRESSES_MAX: usize = 32;
/// Aliases that are followed inside one answer.
const ALIASES_MAX: usize = 8;
/// Bytes of a message's head: id, flags and four counts (RFC 1035 section 4.1.1).
const HEAD_BYTES: usize = 12;

/// What is asked.
#[derive(Debug)]
pub(super) struct Asked {
    name: Name,
    family: IpFamily,
}

/// What an answer to it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The addresses; none if there are none of the family.
    Answer(Answer),
    /// The name does not exist.
    NoName,
    /// The nameserver cannot or will not say; its words.
    Refused(&'static str),
    /// It did not fit.
    Truncated,
}

/// Addresses, and for how long they hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    /// Least time to live of what they follow from.
    pub(super) ttl: Duration,
}

impl Asked {
    /// None if it is no host name. The name is absolute, with or without a dot at its end.
    pub(super) fn new(host: &str, family: IpFamily) -> Option<Self> {
        // The library would read escapes, which no host name has.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.split('.').any(str::is_empty) || !host.bytes().all(is_plain) {
            return None;
        }
        let name = Name::from_ascii(format!("{host}.")).ok()?;
        Some(Self { name, family })
    }

    /// The question as a message with that id.
    pub(super) fn question(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind()));
        message.to_vec().ok()
    }

    /// What a message says of the question with that id; none if it is no answer to it.
    pub(super) fn read(&self, id: u16, bytes: &[u8]) -> Option<Read> {
        // Before anything is decoded: a forged head must not cost more than a look.
        let [id_high, id_low, _, _, 0, 1, ..] = *bytes.get(..HEAD_BYTES)? else { return None };
        if u16::from_be_bytes([id_high, id_low]) != id {
            return None;
        }
        let message = Message::from_vec(bytes).ok()?;
        let meta = &message.metadata;
        let [question] = message.queries.as_slice() else { return None };
        let is_of_us = question.name == self.name
            && question.query_type == self.kind()
            && question.query_class == DNSClass::IN;
        if !is_of_us || meta.message_type != MessageType::Response || meta.op_code != OpCode::Query {
            return None;
        }
        if meta.truncation {
            return Some(Read::Truncated);
        }
        Some(match meta.response_code {
            ResponseCode::NoError => Read::Answer(self.answer(&message.answers)),
            ResponseCode::NXDomain => Read::NoName,
            code => Read::Refused(code.to_str()),
        })
    }

    /// The addresses of the name, or of what it is an alias of.
    fn answer(&self, records: &[Record]) -> Answer {
        let (mut owner, mut ttl) = (&self.name, u32::MAX);
        for _ in 0..ALIASES_MAX {
            let Some((target, lives)) = records.iter().find_map(|record| alias(record, owner)) else { break };
            owner = target;
            ttl = ttl.min(lives);
        }
        let mut addresses = Vec::new();
        for record in records.iter().filter(|record| record.name == *owner) {
            let Some(address) = self.address(record) else { continue };
            if addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
                ttl = ttl.min(record.ttl);
            }
        }
        Answer { addresses, ttl: Duration::from_secs(ttl.into()) }
    }

    fn address(&self, record: &Record) -> Option<IpAddr> {
        match (&record.data, self.family) {
            (RData::A(address), IpFamily::V4) => Some(address.0.into()),
            (RData::AAAA(address), IpFamily::V6) => Some(address.0.into()),
            _ => None,
        }
    }

    fn kind(&self) -> RecordType {
        match self.family {
            IpFamily::V4 => RecordType::A,
            IpFamily::V6 => RecordType::AAAA,
        }
    }
}

/// What `owner` is an alias of according to a record, and for how long.
fn alias<'r>(record: &'r Record, owner: &Name) -> Option<(&'r Name, u32)> {
    match &record.data {
        RData::CNAME(target) if record.name == *owner => Some((&target.0, record.ttl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
