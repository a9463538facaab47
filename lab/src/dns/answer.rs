//! One DNS message in, at most one out. Pure.
//!
//! Answers with authority for `cluster.local` and for the reverse names of pod and service addresses; refuses
//! everything else. Which of several addresses comes first turns with the query's id.

use std::collections::BTreeSet;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::table::{Entry, Table};
use crate::pod::sandbox::CLUSTER_DOMAIN;

/// How long an answer may be kept, in seconds; CoreDNS' own default for a cluster.
const TTL_SECONDS: u32 = 5;
/// The longest UDP answer to a client that says nothing of it (RFC 1035 section 4.2.1).
const UDP_BYTES: u16 = 512;
/// The longest UDP answer at all; fits any link without fragments.
const UDP_BYTES_MAX: u16 = 1232;
/// How many names an alias may lead through.
const ALIASES_MAX: usize = 8;
/// Reverse zones: pod and service ranges of both families.
const REVERSE_ZONES: [&str; 4] = [
    "244.10.in-addr.arpa",
    "96.10.in-addr.arpa",
    "4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa",
    "6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
];

/// What carried the query; says how long the answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams: a long answer is cut and marked.
    Udp,
    /// A stream: up to 65535 bytes.
    Tcp,
}

/// The answer to a query; none if it is no query that could be answered at all.
pub fn answer(table: &Table, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(query) else { return malformed(query) };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        reply.edns = Some(edns);
    }
    reply.metadata.response_code = match (&query.edns, query.metadata.op_code, query.queries.as_slice()) {
        (Some(edns), ..) if edns.version() > 0 => ResponseCode::BADVERS,
        (_, OpCode::Query, [question]) => fill(table, question, query.metadata.id, &mut reply),
        (_, OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    let bytes = reply.to_vec().ok()?;
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => usize::from(udp_limit(&query)),
    };
    if bytes.len() <= limit { Some(bytes) } else { truncated(reply).to_vec().ok() }
}

fn udp_limit(query: &Message) -> u16 {
    query.edns.as_ref().map_or(UDP_BYTES, |e| e.max_payload().clamp(UDP_BYTES, UDP_BYTES_MAX))
}

/// What does not fit is left out altogether: the client asks again by TCP.
fn truncated(mut reply: Message) -> Message {
    reply.answers.clear();
    reply.authorities.clear();
    reply.additionals.clear();
    reply.metadata.truncation = true;
    reply
}

/// A message that cannot be read is told so, if at least its id can be.
fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let is_response = header[2] & 0x80 != 0;
    let id = u16::from_be_bytes([header[0], header[1]]);
    (!is_response).then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())?
}

/// Puts the records into the reply and says its code.
fn fill(table: &Table, question: &Query, id: u16, reply: &mut Message) -> ResponseCode {
    let name = lower(&question.name);
    let Some(zone) = zone_of(&name) else { return ResponseCode::Refused };
    if !matches!(question.query_class, DNSClass::IN | DNSClass::ANY) {
        return ResponseCode::Refused;
    }
    reply.metadata.authoritative = true;
    if name == zone {
        let apex = apex(zone, question.query_type, table.serial());
        return with_soa_if_empty(apex, zone, table, reply);
    }
    let Some(entries) = table.find(&name) else {
        reply.authorities.extend(soa(zone, table.serial()));
        return ResponseCode::NXDomain;
    };
    let mut answers = records(&question.name, &entries, question.query_type);
    let turn = answers.len().max(1);
    answers.rotate_left(usize::from(id) % turn);
    follow_aliases(table, &entries, question.query_type, &mut answers);
    for target in answers.iter().filter_map(srv_target) {
        let found = table.find(&lower(&target)).unwrap_or_default();
        let new = records(&target, &found, RecordType::A).into_iter().chain(records(
            &target,
            &found,
            RecordType::AAAA,
        ));
        let new: Vec<Record> = new.filter(|r| !reply.additionals.contains(r)).collect();
        reply.additionals.extend(new);
    }
    with_soa_if_empty(answers, zone, table, reply)
}

fn with_soa_if_empty(answers: Vec<Record>, zone: &str, table: &Table, reply: &mut Message) -> ResponseCode {
    if answers.is_empty() {
        reply.authorities.extend(soa(zone, table.serial()));
    }
    reply.answers = answers;
    ResponseCode::NoError
}

/// Where an alias leads inside the cluster, its records too; outside, the alias is all there is.
fn follow_aliases(table: &Table, entries: &BTreeSet<Entry>, wanted: RecordType, answers: &mut Vec<Record>) {
    if wanted == RecordType::CNAME {
        return;
    }
    let mut alias = alias_in(entries);
    for _ in 0..ALIASES_MAX {
        let Some(target) = alias else { return };
        let Some(found) = table.find(&target) else { return };
        let Some(name) = absolute(&target) else { return };
        answers.extend(records(&name, &found, wanted));
        alias = alias_in(&found);
    }
}

fn alias_in(entries: &BTreeSet<Entry>) -> Option<String> {
    entries.iter().find_map(|entry| match entry {
        Entry::Cname(target) => Some(target.clone()),
        Entry::A(_) | Entry::Aaaa(_) | Entry::Srv { .. } | Entry::Ptr(_) | Entry::Txt(_) => None,
    })
}

/// The entries of that type as records; an alias answers any type.
fn records(name: &Name, entries: &BTreeSet<Entry>, wanted: RecordType) -> Vec<Record> {
    let record = |entry: &Entry| {
        let data = match entry {
            Entry::A(ip) => RData::A(A(*ip)),
            Entry::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
            Entry::Srv { port, target } => RData::SRV(SRV::new(0, 100, *port, absolute(target)?)),
            Entry::Cname(target) => RData::CNAME(CNAME(absolute(target)?)),
            Entry::Ptr(target) => RData::PTR(PTR(absolute(target)?)),
            Entry::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        };
        let own = data.record_type();
        let fits = wanted == RecordType::ANY || own == wanted || own == RecordType::CNAME;
        fits.then(|| Record::from_rdata(name.clone(), TTL_SECONDS, data))
    };
    entries.iter().filter_map(record).collect()
}

fn srv_target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::SRV(srv) => Some(srv.target.clone()),
        _ => None,
    }
}

/// What stands at the top of a zone.
fn apex(zone: &str, wanted: RecordType, serial: u32) -> Vec<Record> {
    let soa = soa(zone, serial).filter(|_| matches!(wanted, RecordType::SOA | RecordType::ANY));
    let server = absolute(zone).zip(absolute(&name_server()));
    let ns = server.map(|(name, server)| Record::from_rdata(name, TTL_SECONDS, RData::NS(NS(server))));
    let ns = ns.filter(|_| matches!(wanted, RecordType::NS | RecordType::ANY));
    soa.into_iter().chain(ns).collect()
}

fn soa(zone: &str, serial: u32) -> Option<Record> {
    let server = absolute(&name_server())?;
    let person = absolute(&format!("hostmaster.{CLUSTER_DOMAIN}"))?;
    let data = SOA::new(server, person, serial, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(absolute(zone)?, TTL_SECONDS, RData::SOA(data)))
}

fn name_server() -> String {
    format!("ns.dns.{CLUSTER_DOMAIN}")
}

fn zone_of(name: &str) -> Option<&'static str> {
    let zones = std::iter::once(CLUSTER_DOMAIN).chain(REVERSE_ZONES);
    zones
        .into_iter()
        .find(|zone| name == *zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.')))
}

/// The name without its last dot, in lower case.
fn lower(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

#[cfg(test)]
mod tests;
