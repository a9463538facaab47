//! What is taken out of texts and objects, and what stays.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

/// What nobody may see in any of the rows.
const PLANTED: &str = "hunter2hunter2hunter2";

fn pem() -> String {
    let body = STANDARD.encode(PLANTED.repeat(4));
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

fn token() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(PLANTED), part(PLANTED))
}

/// Whether anything planted is left, in any of its forms.
fn leaks(text: &str) -> bool {
    let (encoded, token) = (STANDARD.encode(PLANTED.repeat(4)), token());
    [PLANTED, &encoded[..24], token.as_str()].iter().any(|planted| text.contains(*planted))
}

#[track_caller]
fn check_text(dirty: &str, want: &str) {
    assert!(leaks(dirty), "the row has nothing to take out: {dirty}");
    let (clean, count) = string(dirty);
    assert_eq!((clean.as_str(), count > 0), (want, true), "{dirty}");
    assert_eq!(string(&clean).0, clean, "a second time changes nothing");
}

#[test]
fn secrets_in_text_are_taken_out_and_the_rest_stays() {
    let rows = [
        (format!("key {}end", pem()), "key [redacted]\nend".to_owned()),
        (format!("got {} of shop", token()), "got [redacted] of shop".to_owned()),
        (format!("Bearer {PLANTED}, next"), "Bearer [redacted], next".to_owned()),
        (
            format!("GET /\nAuthorization: Basic {PLANTED}\nhost: a"),
            "GET /\nAuthorization: [redacted]\nhost: a".into(),
        ),
        (format!("cookie=a; session={PLANTED}"), "cookie=[redacted]".to_owned()),
        (
            format!(r#"{{"set-cookie": "a=\"b\"; s={PLANTED}", "host": "b"}}"#),
            r#"{"set-cookie": "[redacted]", "host": "b"}"#.into(),
        ),
        (format!("https://anna:{PLANTED}@host/path"), "https://anna:[redacted]@host/path".to_owned()),
        (format!("redis://:{PLANTED}@host:6379"), "redis://:[redacted]@host:6379".to_owned()),
        (
            format!("/login?user=anna&password={PLANTED}&x=1"),
            "/login?user=anna&password=[redacted]&x=1".into(),
        ),
    ];
    for (dirty, want) in rows {
        check_text(&dirty, &want);
    }
}

#[test]
fn secrets_on_command_lines_and_in_settings_are_taken_out() {
    let rows = [
        (format!("run --db-password={PLANTED} --mode fast"), "run --db-password=[redacted] --mode fast"),
        (format!("--token {PLANTED}"), "--token [redacted]"),
        (format!("db.password: {PLANTED}\nhost: a"), "db.password: [redacted]\nhost: a"),
        (format!(r#"{{"password": "{PLANTED}"}}"#), r#"{"password": [redacted]}"#),
        (format!("--password='a {PLANTED}' --x"), "--password=[redacted] --x"),
        (format!(r#"--token="a {PLANTED}""#), "--token=[redacted]"),
        (format!("dbPassword: 'a {PLANTED}'"), "dbPassword: [redacted]"),
        (format!("PGPASSWORD={PLANTED} psql"), "PGPASSWORD=[redacted] psql"),
        (format!("export AWS_SECRET_ACCESS_KEY={PLANTED}"), "export AWS_SECRET_ACCESS_KEY=[redacted]"),
        (format!("--from-literal=token={PLANTED}"), "--from-literal=token=[redacted]"),
        (format!("https://{PLANTED}@host/a"), "https://[redacted]@host/a"),
        (format!("mysql://u:p@{PLANTED}@host/a"), "mysql://u:[redacted]@host/a"),
        (format!("x-ambit-console-token: {PLANTED}"), "x-ambit-console-token: [redacted]"),
    ];
    for (dirty, want) in &rows {
        check_text(dirty, want);
    }
}

#[test]
fn what_is_no_secret_stays_as_it_is() {
    let rows = [
        "authorization policy shop/open allows",
        "type.googleapis.com/istio.security.Authorization: 4 resources",
        "http://10.0.0.1:8080/a@b",
        "http://[fd00::1]:8080/",
        "spiffe://cluster.local/ns/shop/sa/web",
        "the bearer is anna",
        "-----BEGIN CERTIFICATE-----",
        "ztunnel --ca-token-file=/var/run/token --secret-name=plain",
        "the token is for another audience",
    ];
    for row in rows {
        assert_eq!(string(row), (row.to_owned(), 0));
    }
}

#[test]
fn documents_lose_what_their_fields_say_is_secret() {
    let mut document = json!({
        "kind": "List",
        "items": [
            {"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": STANDARD.encode(PLANTED), "password": STANDARD.encode(PLANTED)}, "stringData": {"p": PLANTED}},
            {"kind": "Pod", "spec": {"containers": [{"env": [
                {"name": "DB_PASSWORD", "value": PLANTED},
                {"name": "MODE", "value": "fast"},
                {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}},
            ]}]}},
            {"kind": "SecretList", "items": [{"metadata": {"name": "b"}, "data": {"k": PLANTED}}]},
        ],
        "headers": {"Authorization": [PLANTED, PLANTED], "accept": ["*/*"]},
        "pairs": [["cookie", PLANTED], ["host", "a"]],
        "filters": [{"name": "authorization", "value": PLANTED}],
        "annotation": json!({"kind": "Secret", "data": {"k": PLANTED}}).to_string(),
    });
    assert!(leaks(&document.to_string()));
    let count = json(&mut document);
    let text = document.to_string();
    assert!(!leaks(&text) && !text.contains(&STANDARD.encode(PLANTED)), "{text}");
    assert_eq!(count, 10, "{text}");
    assert_eq!(document["items"][0]["data"]["password"], MARK_IN_BASE64);
    assert_eq!(document["items"][0]["data"]["k"], MARK_IN_BASE64);
    assert_eq!(document["items"][0]["stringData"]["p"], MARK);
    assert_eq!(document["items"][1]["spec"]["containers"][0]["env"][1]["value"], "fast");
    assert_eq!(
        document["items"][1]["spec"]["containers"][0]["env"][2]["valueFrom"]["secretKeyRef"]["key"],
        "k"
    );
    assert_eq!(document["headers"]["accept"][0], "*/*");
    assert_eq!(document["pairs"][1][1], "a");
    let before = document.clone();
    assert_eq!((json(&mut document) > 0, document == before), (true, true), "marks stand for marks");
}

#[test]
fn settings_of_others_and_what_is_named_a_secret_go() {
    let map = |name: &str, namespace: &str| json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"mesh": "trustDomain: td"}, "binaryData": {"b": "AAAA"}});
    let mut document = json!({"items": [
        {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"settings.yaml": format!("key: {PLANTED}")}},
        map("istio", "shop"),
        map("istio", "istio-system"),
        {"kind": "Deployment", "spec": {
            "args": ["--user", "anna", "--db-password", PLANTED, format!("--api-key={PLANTED}")],
            "env": [{"name": "PGPASS", "value": PLANTED}, {"name": "SIGNING_KEY", "value": PLANTED}, {"name": "BYPASS", "value": "on"}],
            "client_secret": PLANTED,
            "tokens": [PLANTED, PLANTED],
            "volumes": [{"secret": {"secretName": "db"}}],
            "automountServiceAccountToken": true,
        }},
    ]});
    let count = json(&mut document);
    let text = document.to_string();
    assert!(!leaks(&text), "{text}");
    assert_eq!(count, 10, "{text}");
    assert_eq!(document["items"][1]["data"]["mesh"], MARK);
    assert_eq!(document["items"][2]["data"]["mesh"], "trustDomain: td");
    let spec = &document["items"][3]["spec"];
    assert_eq!((&spec["args"][1], &spec["env"][2]["value"]), (&json!("anna"), &json!("on")));
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], "db");
    assert_eq!(spec["automountServiceAccountToken"], true);
}

#[test]
fn keys_in_names_and_annotations_go_too() {
    let mut object = json!({"metadata": {"annotations": {"a": pem(), "b": STANDARD.encode(pem())}}});
    object["metadata"]["annotations"][token().as_str()] = json!("c");
    assert_eq!(json(&mut object), 3);
    assert!(!leaks(&object.to_string()), "{object}");
    assert_eq!(object["metadata"]["annotations"]["[redacted]"], "c");
}

#[test]
fn a_line_behind_the_time_that_an_api_server_puts_there_is_read_as_well() {
    let line = format!("2026-01-02T03:04:05.678901234Z {{\"client_secret\":\"{PLANTED}\",\"n\":1}}\n");
    let (clean, count) = lines(line.as_bytes());
    let want = "2026-01-02T03:04:05.678901234Z {\"client_secret\":\"[redacted]\",\"n\":1}\n";
    assert_eq!((String::from_utf8(clean).unwrap().as_str(), count), (want, 1));
}

#[test]
fn a_log_may_have_lines_of_both_kinds() {
    let log = format!(
        "plain\n{{\"message\":\"authorization: Bearer {PLANTED}\",\"level\":\"INFO\"}}\n{}{{\"level\":\"INFO\", \"n\": 1}}\n",
        pem()
    );
    let (clean, count) = lines(log.as_bytes());
    let clean = String::from_utf8(clean).unwrap();
    assert!(!leaks(&clean) && count >= 2, "{clean}");
    let told: Vec<&str> = clean.lines().collect();
    assert_eq!((told[0], told[told.len() - 1]), ("plain", "{\"level\":\"INFO\", \"n\": 1}"));
    let line: Value = serde_json::from_str(told[1]).unwrap();
    assert_eq!((&line["message"], &line["level"]), (&json!("authorization: [redacted]"), &json!("INFO")));
}
