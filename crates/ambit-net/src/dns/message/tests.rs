//! Questions are what a nameserver understands; answers are read for what was asked and nothing else.

use hickory_proto::rr::rdata::{A, AAAA, CNAME};

use super::*;

const ID: u16 = 0x1234;

fn asked(family: IpFamily) -> Asked {
    Asked::new("Api.Example", family).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// `OWNER TTL VALUE`, where the value is an address or a name.
fn record(text: &str) -> Record {
    let words: Vec<&str> = text.split(' ').collect();
    let [owner, ttl, value] = words[..] else { panic!("row {text:?}") };
    let data = match value.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => RData::A(A(ip)),
        Ok(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
        Err(_) => RData::CNAME(CNAME(name(value))),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

fn reply(family: IpFamily, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(ID, OpCode::Query);
    message.add_query(Query::query(name("api.example."), asked(family).kind()));
    change(&mut message);
    message.to_vec().unwrap()
}

#[track_caller]
fn check(family: IpFamily, records: &[&str], want: &str, seconds: u32) {
    let bytes = reply(family, |message| message.answers = records.iter().map(|row| record(row)).collect());
    let Some(Read::Answer(answer)) = asked(family).read(ID, &bytes) else { panic!("{records:?}") };
    let found: Vec<String> = answer.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(found.join(" "), want, "{records:?}");
    assert_eq!(answer.ttl, Duration::from_secs(seconds.into()), "{records:?}");
}

#[test]
fn addresses_of_the_name_and_family_count() {
    use IpFamily::{V4, V6};

    let both = ["api.example. 60 192.0.2.1", "API.example. 30 192.0.2.2", "api.example. 5 2001:db8::1"];
    check(V4, &both, "192.0.2.1 192.0.2.2", 30);
    check(V6, &both, "2001:db8::1", 5);
    check(V4, &["other.example. 60 192.0.2.1"], "", u32::MAX);
    check(V4, &[], "", u32::MAX);
}

#[test]
fn aliases_are_followed_and_the_shortest_life_counts() {
    let chain = ["a.example. 60 b.example.", "b.example. 60 192.0.2.7", "api.example. 7 a.example."];
    check(IpFamily::V4, &chain, "192.0.2.7", 7);
    // An alias that leads out of the answer, and one that leads back.
    check(IpFamily::V4, &["api.example. 9 elsewhere.example."], "", 9);
    check(IpFamily::V4, &["api.example. 9 a.example.", "a.example. 8 api.example."], "", 8);
}

#[test]
fn addresses_of_one_answer_are_bounded() {
    let rows: Vec<String> = (0..=255).map(|n| format!("api.example. 60 192.0.2.{n}")).collect();
    let bytes = reply(IpFamily::V4, |m| m.answers = rows.iter().map(|row| record(row)).collect());
    let Some(Read::Answer(answer)) = asked(IpFamily::V4).read(ID, &bytes) else { panic!("not read") };
    assert_eq!(answer.addresses.len(), ADDRESSES_MAX);
}

#[test]
fn codes_of_the_nameserver_are_told_apart() {
    let coded = |code| reply(IpFamily::V4, |message| message.metadata.response_code = code);
    let read = |bytes: Vec<u8>| asked(IpFamily::V4).read(ID, &bytes);
    assert_eq!(read(coded(ResponseCode::NXDomain)), Some(Read::NoName));
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr, ResponseCode::NotImp] {
        assert_eq!(read(coded(code)), Some(Read::Refused(code.to_str())));
    }
    let cut = reply(IpFamily::V4, |message| message.metadata.truncation = true);
    assert_eq!(read(cut), Some(Read::Truncated));
}

#[test]
fn what_is_no_answer_to_the_question_is_none() {
    let good = reply(IpFamily::V4, |_| {});
    let read = |bytes: &[u8]| asked(IpFamily::V4).read(ID, bytes);
    assert!(read(&good).is_some());
    assert_eq!(asked(IpFamily::V4).read(ID + 1, &good), None, "another id");
    assert_eq!(asked(IpFamily::V6).read(ID, &good), None, "another type");
    for length in 0..good.len() {
        assert_eq!(read(&good[..length]), None, "cut at {length}");
    }
    let other = Query::query(name("api.example.org."), RecordType::A);
    let rows: [(&str, Vec<u8>); 5] = [
        ("another name", reply(IpFamily::V4, |m| m.queries = vec![other.clone()])),
        ("no question", reply(IpFamily::V4, |m| m.queries.clear())),
        ("two questions", reply(IpFamily::V4, |m| m.queries.push(other.clone()))),
        ("a question", reply(IpFamily::V4, |m| m.metadata.message_type = MessageType::Query)),
        ("another operation", reply(IpFamily::V4, |m| m.metadata.op_code = OpCode::Notify)),
    ];
    for (what, bytes) in rows {
        assert_eq!(read(&bytes), None, "{what}");
    }
    assert_eq!(read(&[0x12, 0x34, 0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0]), None, "only a head");
    assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n\r\n"), None);
}

#[test]
fn a_question_asks_for_recursion_and_one_type() {
    for (family, kind) in [(IpFamily::V4, RecordType::A), (IpFamily::V6, RecordType::AAAA)] {
        let message = Message::from_vec(&asked(family).question(ID).unwrap()).unwrap();
        assert_eq!(message.metadata.id, ID);
        assert!(message.metadata.recursion_desired);
        assert_eq!(message.queries, [Query::query(name("api.example."), kind)]);
    }
}

#[test]
fn what_is_no_host_name_is_not_asked_for() {
    let long = "x".repeat(64);
    for bad in ["", ".", "a..b", "*.example", "a b", "a\\046b", "a\0b", "ä.example", long.as_str()] {
        assert!(Asked::new(bad, IpFamily::V4).is_none(), "{bad:?}");
    }
    for good in ["api.example", "api.example.", "_srv.api-1.example", "one"] {
        assert!(Asked::new(good, IpFamily::V4).is_some(), "{good:?}");
    }
}
