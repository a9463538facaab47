//! What the cluster's DNS answers, question by question.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::{Table, Transport, answer};

const SOA: &str = "/ cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5";

#[test]
fn services_have_names() {
    check(&[
        ("web.shop.svc.cluster.local A", "NoError web.shop.svc.cluster.local. A 10.96.0.20"),
        ("WEB.Shop.svc.cluster.local AAAA", "NoError WEB.Shop.svc.cluster.local. AAAA fd00:10:96::14"),
        ("web.shop.svc.cluster.local TXT", &format!("NoError {SOA}")),
        (
            "_http._tcp.web.shop.svc.cluster.local SRV",
            "NoError _http._tcp.web.shop.svc.cluster.local. SRV 0 100 80 web.shop.svc.cluster.local. + \
             web.shop.svc.cluster.local. A 10.96.0.20 + web.shop.svc.cluster.local. AAAA fd00:10:96::14",
        ),
        ("20.0.96.10.in-addr.arpa PTR", "NoError 20.0.96.10.in-addr.arpa. PTR web.shop.svc.cluster.local."),
        (
            "alias.shop.svc.cluster.local A",
            "NoError alias.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local. web.shop.svc.cluster.local. A 10.96.0.20",
        ),
        ("outside.shop.svc.cluster.local A", "NoError outside.shop.svc.cluster.local. CNAME example.test."),
    ]);
}

#[test]
fn headless_services_name_their_pods() {
    check(&[
        (
            "db.shop.svc.cluster.local A",
            "NoError db.shop.svc.cluster.local. A 10.244.2.2 db.shop.svc.cluster.local. A 10.244.1.2",
        ),
        ("first.db.shop.svc.cluster.local A", "NoError first.db.shop.svc.cluster.local. A 10.244.1.2"),
        (
            "10-244-2-2.db.shop.svc.cluster.local A",
            "NoError 10-244-2-2.db.shop.svc.cluster.local. A 10.244.2.2",
        ),
        ("10-244-2-3.db.shop.svc.cluster.local A", &format!("NXDomain {SOA}")),
        (
            "_sql._tcp.db.shop.svc.cluster.local SRV",
            "NoError _sql._tcp.db.shop.svc.cluster.local. SRV 0 100 3306 first.db.shop.svc.cluster.local. \
             _sql._tcp.db.shop.svc.cluster.local. SRV 0 100 3306 10-244-2-2.db.shop.svc.cluster.local. + \
             first.db.shop.svc.cluster.local. A 10.244.1.2 + 10-244-2-2.db.shop.svc.cluster.local. A 10.244.2.2",
        ),
        (
            "2.1.244.10.in-addr.arpa PTR",
            "NoError 2.1.244.10.in-addr.arpa. PTR first.db.shop.svc.cluster.local.",
        ),
        ("empty.shop.svc.cluster.local A", &format!("NoError {SOA}")),
    ]);
}

#[test]
fn pods_have_names_by_address() {
    check(&[
        ("10-244-1-2.shop.pod.cluster.local A", "NoError 10-244-1-2.shop.pod.cluster.local. A 10.244.1.2"),
        (
            "fd00-10-244-1--2.shop.pod.cluster.local AAAA",
            "NoError fd00-10-244-1--2.shop.pod.cluster.local. AAAA fd00:10:244:1::2",
        ),
        ("10-244-1-9.shop.pod.cluster.local A", &format!("NXDomain {SOA}")),
        ("10-244-1-2.jobs.pod.cluster.local A", &format!("NXDomain {SOA}")),
    ]);
}

#[test]
fn what_does_not_exist_is_said_with_authority() {
    check(&[
        ("nothing.shop.svc.cluster.local A", &format!("NXDomain {SOA}")),
        ("web.shop.svc.cluster.local.shop.svc.cluster.local A", &format!("NXDomain {SOA}")),
        ("shop.svc.cluster.local A", &format!("NoError {SOA}")),
        ("svc.cluster.local A", &format!("NoError {SOA}")),
        ("cluster.local A", &format!("NoError {SOA}")),
        ("cluster.local NS", "NoError cluster.local. NS ns.dns.cluster.local."),
        ("dns-version.cluster.local TXT", "NoError dns-version.cluster.local. TXT 1.1.0"),
        (
            "1.1.244.10.in-addr.arpa PTR",
            &format!("NXDomain {}", SOA.replace("/ cluster.local.", "/ 244.10.in-addr.arpa.")),
        ),
    ]);
}

#[test]
fn names_outside_are_refused() {
    check(&[
        ("example.com A", "Refused"),
        ("notcluster.local A", "Refused"),
        ("local A", "Refused"),
        ("1.1.168.192.in-addr.arpa PTR", "Refused"),
    ]);
}

#[test]
fn what_is_no_question_is_told_so_or_left() {
    let table = table();
    let ask = |change: &dyn Fn(&mut Message)| {
        let mut query = question("web.shop.svc.cluster.local", RecordType::A);
        change(&mut query);
        let bytes = answer(&table, &query.to_vec().unwrap(), Transport::Udp)?;
        Some(Message::from_vec(&bytes).unwrap().metadata.response_code)
    };
    assert_eq!(ask(&|q| q.metadata.message_type = MessageType::Response), None);
    assert_eq!(ask(&|q| q.metadata.op_code = OpCode::Update), Some(ResponseCode::NotImp));
    assert_eq!(ask(&|q| q.queries.clear()), Some(ResponseCode::FormErr));
    assert_eq!(answer(&table, b"short", Transport::Udp), None);
    let garbage = [0x12, 0x34, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xff];
    let reply = Message::from_vec(&answer(&table, &garbage, Transport::Udp).unwrap()).unwrap();
    assert_eq!((reply.metadata.id, reply.metadata.response_code), (0x1234, ResponseCode::FormErr));
}

#[test]
fn long_answers_are_cut_over_udp_only() {
    let rows: Vec<Value> = (2..100).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
    let big = slice("db", json!([]), json!(rows));
    let table = Table::build(&services(), &[big], &[], 7);
    let size = |transport, payload: Option<u16>| {
        let mut query = question("db.shop.svc.cluster.local", RecordType::A);
        query.edns = payload.map(|bytes| {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            edns
        });
        let bytes = answer(&table, &query.to_vec().unwrap(), transport).unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        (reply.metadata.truncation, reply.answers.len(), bytes.len() <= 1232)
    };
    assert_eq!(size(Transport::Udp, None), (true, 0, true));
    assert_eq!(size(Transport::Udp, Some(65535)), (true, 0, true));
    assert_eq!(size(Transport::Tcp, None), (false, 98, false));
}

#[test]
fn the_first_address_turns() {
    let table = table();
    let first = |id: u16| {
        let mut query = question("db.shop.svc.cluster.local", RecordType::A);
        query.metadata.id = id;
        let bytes = answer(&table, &query.to_vec().unwrap(), Transport::Udp).unwrap();
        Message::from_vec(&bytes).unwrap().answers[0].data.to_string()
    };
    assert_eq!([first(0), first(1), first(2)], ["10.244.1.2", "10.244.2.2", "10.244.1.2"]);
}

#[track_caller]
fn check(rows: &[(&str, &str)]) {
    let table = table();
    for (ask, want) in rows {
        let (name, kind) = ask.split_once(' ').unwrap();
        let query = question(name, kind.parse().unwrap());
        let bytes = answer(&table, &query.to_vec().unwrap(), Transport::Udp).unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(text(&reply), *want, "row {ask}");
    }
}

fn text(reply: &Message) -> String {
    let show = |r: &Record| format!("{} {} {}", r.name.to_ascii(), r.record_type(), r.data);
    let mut out = format!("{:?}", reply.metadata.response_code);
    out.extend(reply.answers.iter().map(|r| format!(" {}", show(r))));
    out.extend(reply.authorities.iter().map(|r| format!(" / {}", show(r))));
    out.extend(reply.additionals.iter().map(|r| format!(" + {}", show(r))));
    out
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    query
}

fn table() -> Table {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "db-0"},
        "spec": {"containers": []},
        "status": {"podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:1::2"}]},
    }))
    .unwrap();
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "hostname": "first", "conditions": {"ready": true}},
        {"addresses": ["10.244.2.2"], "conditions": {"ready": true}},
        {"addresses": ["10.244.2.3"], "conditions": {"ready": false}},
    ]);
    let slices = [slice("db", json!([{"name": "sql", "port": 3306, "protocol": "TCP"}]), endpoints)];
    Table::build(&services(), &slices, &[pod], 7)
}

fn services() -> Vec<Service> {
    let rows = [
        (
            "web",
            json!({"clusterIPs": ["10.96.0.20", "fd00:10:96::14"], "ports": [{"name": "http", "port": 80}]}),
        ),
        ("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 3306}]})),
        ("empty", json!({"clusterIP": "None"})),
        ("alias", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"})),
        ("outside", json!({"type": "ExternalName", "externalName": "example.test"})),
    ];
    let service = |(name, spec): (&str, Value)| {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}))
            .unwrap()
    };
    rows.into_iter().map(service).collect()
}

fn slice(service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        "metadata": {"namespace": "shop", "name": "x", "labels": {"kubernetes.io/service-name": service}},
    }))
    .unwrap()
}
