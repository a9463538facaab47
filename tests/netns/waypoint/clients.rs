//! Clients and servers that are not ours, on both sides of the waypoint: curl, nginx, nghttp2's h2load, python.

use std::time::Duration;

use ambit_tests::lab::{Background, not_run, peer, wait_until};
use serde_json::json;

use super::shop::{CLIENT, GRPC, PODS, Shop, WEB, service};
use crate::cast::pod;

/// Where python's server listens.
const CHAT: u16 = 8000;
/// Fifty requests of python's own client on one connection, with bodies of unknown length.
const CHUNKED: &str = "
import http.client
c = http.client.HTTPConnection('web.shop.svc.cluster.local', 80, timeout=10)
for _ in range(50):
    c.request('POST', '/python', body=(b'x' * 100 for _ in range(10)), encode_chunked=True,
              headers={'Transfer-Encoding': 'chunked'})
    r = c.getresponse()
    b = r.read()
    assert r.status == 200 and b'\"bytes\":1000' in b, (r.status, b)
print('50 answers')
";
/// Longest time for one of their programs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn programs_that_are_not_ours_are_served() {
    let more = [
        pod("shop/plain", "node2", &[]),
        pod("shop/chat", "node1", &["python3", &peer("websocket.py"), "serve", &CHAT.to_string()]),
        service("shop/plain", &json!({"app": "plain"}), 80, 8080, "http"),
        service("shop/chat", &json!({"app": "chat"}), CHAT, CHAT, "http"),
    ];
    let Some(shop) = Shop::up("wp-clients", &more) else { return };
    curl(&shop);
    nginx(&shop);
    python(&shop);
    h2load(&shop);
}

#[track_caller]
fn output(shop: &Shop, command: &[&str]) -> String {
    shop.lab.spawn(CLIENT, command).finish(PATIENCE).ok()
}

fn curl(shop: &Shop) {
    let answer = output(
        shop,
        &["curl", "-sS", "-m", "10", "-w", " %{http_code}", "-d", "12345", &format!("{WEB}/curl")],
    );
    assert!(answer.ends_with(" 200") && answer.contains("\"bytes\":5"), "{answer}");
    // Two requests on one connection, and a body that waits for leave.
    let url = format!("{WEB}/upload");
    let expect = [
        "-H",
        "Expect: 100-continue",
        "-d",
        "12345",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{num_connects}\n",
    ];
    let answer = output(shop, &[&["curl", "-sS", "-m", "10"], &expect[..], &[&*url, &*url]].concat());
    assert!(answer.starts_with("200 1\n") && answer.ends_with("200 0\n"), "{answer}");
    let answer =
        output(shop, &["curl", "-sS", "-m", "10", "--http2-prior-knowledge", &format!("{GRPC}/curl")]);
    assert!(answer.contains("HTTP/2.0"), "{answer}");
    let answer = output(shop, &["curl", "-sS", "-m", "10", "-0", &format!("{WEB}/curl")]);
    assert!(answer.contains("\"name\""), "by HTTP/1.0: {answer}");
    // An upgrade to HTTP/2 is left alone: the request is answered as it is.
    let answer = output(
        shop,
        &[
            "curl",
            "-sS",
            "-m",
            "10",
            "--http2",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
            &format!("{WEB}/curl"),
        ],
    );
    assert_eq!(answer, "200 1.1");
    let taken = shop.taken(&PODS, "/curl");
    assert_eq!(taken, 3, "requests of curl by HTTP/1 at the applications");
}

fn nginx(shop: &Shop) {
    let server = serve_files(shop);
    let url = "http://plain.shop.svc.cluster.local";
    let want =
        shop.lab.exec("shop/plain", &["sha256sum", &format!("{}/data.bin", shop.lab.folder("plain"))]).ok();
    let fetch = format!("set -o pipefail; curl -sSf -m 30 {url}/data.bin | sha256sum");
    let got = output(shop, &["bash", "-c", &fetch]);
    assert_eq!(got.split_whitespace().next(), want.split_whitespace().next(), "what nginx sent");
    let part = output(
        shop,
        &[
            "curl",
            "-sS",
            "-m",
            "10",
            "-r",
            "100-199",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
            &format!("{url}/data.bin"),
        ],
    );
    assert_eq!(part, "206 100");
    let load = shop.load(&format!("{url}/small"), &["--requests", "1000", "--concurrency", "4"]);
    assert_eq!((load.count("/by_status/200"), load.count("/failed")), (1000, 0), "{:#}", load.0);
    drop(server);
}

/// Starts nginx in its pod and waits until it listens.
fn serve_files(shop: &Shop) -> Background {
    let folder = shop.lab.folder("plain");
    let script = format!(
        "chmod 755 {folder} && head -c 16M /dev/urandom > {folder}/data.bin && echo small > {folder}/small"
    );
    drop(shop.lab.exec("shop/plain", &["sh", "-c", &script]).ok());
    let config = format!(
        "daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; \
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         server {{ listen [::]:8080 ipv6only=off; root {folder}; }} }}"
    );
    let config = shop.lab.file("plain.conf", &config);
    let mut server =
        shop.lab.spawn("shop/plain", &["nginx", "-c", &config, "-e", &format!("{folder}/error.log")]);
    wait_until("nginx listens", Duration::from_secs(20), || {
        assert!(server.is_running(), "nginx has ended: {}", server.stderr());
        shop.lab.exec("shop/plain", &["sh", "-c", "ss -Hltn | grep -q ':8080 '"]).code == Some(0)
    });
    server
}

fn python(shop: &Shop) {
    let host = "chat.shop.svc.cluster.local";
    let called = output(shop, &["python3", &peer("websocket.py"), "call", host, &CHAT.to_string()]);
    assert_eq!(called.trim(), "200 messages came back");
    assert_eq!(output(shop, &["python3", "-c", CHUNKED]).trim(), "50 answers");
}

fn h2load(shop: &Shop) {
    let there = shop.lab.exec(CLIENT, &["sh", "-c", "command -v h2load"]).code == Some(0);
    if !there {
        not_run("h2load is not installed; install it with: xtask/need.sh test");
        return;
    }
    shop.reset_counts();
    let report = output(shop, &["h2load", "-n", "2000", "-c", "4", "-m", "50", &format!("{GRPC}/h2load")]);
    assert!(report.contains("2000 succeeded, 0 failed, 0 errored"), "{report}");
    assert_eq!(shop.taken(&["shop/grpc"], "/h2load"), 2000, "{report}");
}
