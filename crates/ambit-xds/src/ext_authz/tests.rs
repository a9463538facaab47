//! What an answer means, row by row, and what a question says.

use prost::Message;

use super::*;
use crate::proto::envoy::r#type::v3::HttpStatus;
use crate::proto::google::rpc::Status;
use auth::check_response::HttpResponse;

fn option(name: &str, value: &str) -> config::HeaderValueOption {
    let header = config::HeaderValue { key: name.into(), value: value.into(), ..Default::default() };
    config::HeaderValueOption { header: Some(header), ..Default::default() }
}

fn status(code: i32) -> Option<Status> {
    Some(Status { code, ..Status::default() })
}

fn ok(ok: auth::OkHttpResponse) -> auth::CheckResponse {
    auth::CheckResponse { status: status(0), http_response: Some(HttpResponse::OkResponse(ok)) }
}

fn yes() -> Answer {
    Answer::Allowed { request: vec![], remove: vec![], response: vec![] }
}

fn no(status: Option<u16>) -> Answer {
    Answer::Denied { status, headers: vec![], body: String::new() }
}

#[test]
fn what_contradicts_itself_is_a_no_and_what_says_nothing_is_no_answer() {
    let allowing = || Some(HttpResponse::OkResponse(auth::OkHttpResponse::default()));
    let denying = |code| {
        let status = Some(HttpStatus { code });
        Some(HttpResponse::DeniedResponse(auth::DeniedHttpResponse { status, ..Default::default() }))
    };
    let rows = [
        (None, None, Err(Unreadable::Nothing)),
        (status(0), None, Ok(yes())),
        (status(0), allowing(), Ok(yes())),
        (None, allowing(), Ok(yes())),
        (status(7), None, Ok(no(None))),
        (status(7), allowing(), Ok(no(None))),
        (status(16), denying(401), Ok(no(Some(401)))),
        (status(0), denying(401), Ok(no(Some(401)))),
        (None, denying(302), Ok(no(Some(302)))),
        (status(7), denying(0), Ok(no(None))),
        (status(7), denying(101), Ok(no(None))),
        (status(7), denying(-1), Ok(no(None))),
    ];
    for (status, http_response, want) in rows {
        let response = auth::CheckResponse { status, http_response };
        let said = format!("{response:?}");
        assert_eq!(answer(response), want, "{said}");
    }
}

#[test]
fn fields_replace_or_append_as_the_protocol_says() {
    use config::header_value_option::HeaderAppendAction as Action;
    let ways = |option: config::HeaderValueOption| {
        let headers = vec![option.clone()];
        let read =
            ok(auth::OkHttpResponse { headers, response_headers_to_add: vec![option], ..Default::default() });
        let Ok(Answer::Allowed { request, response, .. }) = answer(read) else { panic!("a yes") };
        (request[0].way, response[0].way)
    };
    let acting =
        |action: Action| config::HeaderValueOption { append_action: action.into(), ..option("a", "b") };
    assert_eq!(ways(option("a", "b")), (Way::Set, Way::Append));
    assert_eq!(
        ways(config::HeaderValueOption { append: Some(true), ..option("a", "b") }),
        (Way::Append, Way::Append)
    );
    assert_eq!(
        ways(config::HeaderValueOption { append: Some(false), ..option("a", "b") }),
        (Way::Set, Way::Set)
    );
    assert_eq!(ways(acting(Action::OverwriteIfExistsOrAdd)), (Way::Set, Way::Set));
    assert_eq!(ways(acting(Action::AddIfAbsent)), (Way::AddIfAbsent, Way::AddIfAbsent));
    assert_eq!(ways(acting(Action::OverwriteIfExists)), (Way::SetIfPresent, Way::SetIfPresent));
}

#[test]
fn an_answer_has_bounds() {
    let many = |n: usize| auth::OkHttpResponse {
        headers: (0..n).map(|n| option(&format!("x{n}"), "v")).collect(),
        headers_to_remove: vec!["y".into()],
        ..Default::default()
    };
    assert!(answer(ok(many(FIELDS_MAX - 1))).is_ok());
    assert_eq!(answer(ok(many(FIELDS_MAX))), Err(Unreadable::Fields(FIELDS_MAX + 1)));
    let long = |bytes: usize| auth::OkHttpResponse {
        response_headers_to_add: vec![option("x", &"v".repeat(bytes))],
        ..Default::default()
    };
    assert!(answer(ok(long(FIELD_BYTES_MAX - 1))).is_ok());
    assert_eq!(answer(ok(long(FIELD_BYTES_MAX))), Err(Unreadable::FieldBytes(FIELD_BYTES_MAX + 1)));
    let body = |bytes: usize| auth::CheckResponse {
        status: status(7),
        http_response: Some(HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
            body: "b".repeat(bytes),
            ..Default::default()
        })),
    };
    assert!(answer(body(BODY_BYTES_MAX)).is_ok());
    assert_eq!(answer(body(BODY_BYTES_MAX + 1)), Err(Unreadable::Body(BODY_BYTES_MAX + 1)));
    let query = auth::OkHttpResponse { query_parameters_to_remove: vec!["q".into()], ..Default::default() };
    assert_eq!(answer(ok(query)), Err(Unreadable::Query));
}

#[test]
fn a_question_has_envoys_bytes() {
    let asked = Asked {
        source: Party { address: "10.0.0.1:9".parse().unwrap(), principal: "spiffe://d/ns/a/sa/b".into() },
        destination: Party { address: "[::ffff:10.0.0.2]:80".parse().unwrap(), principal: String::new() },
        unix_seconds: 5,
        method: "GET",
        path: "/path?q",
        host: "h",
        protocol: "HTTP/2",
        size: None,
        headers: [("x-request-id".to_owned(), "i".to_owned())].into(),
    };
    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut all = vec![tag << 3 | 2, u8::try_from(content.len()).unwrap()];
        all.extend_from_slice(content);
        all
    }
    let address = |ip: &str, port: u8| {
        let socket = [message(2, ip.as_bytes()), vec![3 << 3, port]].concat();
        message(1, &message(1, &socket))
    };
    let source = [address("10.0.0.1", 9), message(4, b"spiffe://d/ns/a/sa/b")].concat();
    let line = [message(1, b"x-request-id"), message(2, b"i")].concat();
    let size = [&[9 << 3][..], &[0xff; 9], &[1]].concat();
    let http = [
        message(1, b"i"),
        message(2, b"GET"),
        message(3, &line),
        message(4, b"/path?q"),
        message(5, b"h"),
        message(6, b"http"),
        size,
        message(10, b"HTTP/2"),
    ]
    .concat();
    let inner = [message(1, &[1 << 3, 5]), message(2, &http)].concat();
    let attributes = [message(1, &source), message(2, &address("10.0.0.2", 80)), message(4, &inner)].concat();
    // Longer than 127 bytes, so that its length takes two.
    let length = attributes.len();
    assert!((128..16384).contains(&length));
    let prefix =
        [1 << 3 | 2, u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
    assert_eq!(request(asked).encode_to_vec(), [&prefix[..], &attributes].concat());
}
