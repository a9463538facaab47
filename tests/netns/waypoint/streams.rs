//! Row 8: gRPC of every kind, WebSockets, and bodies that are larger than what a waypoint may hold.

use std::time::Duration;

use ambit_tests::lab::soak;
use serde_json::json;

use super::shop::{CLIENT, GRPC, SOON, Shop, Told, WEB};

/// Most that the waypoint's memory may grow over idle, in KiB.
const GROWTH_KIB: u64 = 30 * 1024;
/// Bytes of a gRPC message in the streams.
const PIECE: u64 = 64 * 1024;

/// Length of a stream, of a conversation and of a transfer in bytes, silence in seconds, and patience.
fn lengths() -> (u64, u64, u64, Duration) {
    if soak() {
        (100 << 20, 1 << 30, 600, Duration::from_secs(1500))
    } else {
        (10 << 20, 32 << 20, 3, Duration::from_secs(80))
    }
}

#[test]
fn grpc_of_every_kind_passes() {
    let Some(shop) = Shop::up("wp-grpc", &[]) else { return };
    let unary = call(&shop, "unary", &[]);
    assert_eq!((&unary.0["ok"], &unary.0["sha256_ok"]), (&json!(true), &json!(true)), "{:#}", unary.0);
    let (stream, ..) = lengths();
    let (messages, piece) = ((stream / PIECE).to_string(), PIECE.to_string());
    for kind in ["client", "server", "bidi"] {
        let told = call(&shop, kind, &["--messages", &messages, "--bytes", &piece]);
        assert_eq!(
            (&told.0["ok"], &told.0["sha256_ok"]),
            (&json!(true), &json!(true)),
            "{kind}: {:#}",
            told.0
        );
        assert_eq!(told.count("/bytes"), stream, "{kind}: {:#}", told.0);
        assert_eq!(told.count("/messages"), stream / PIECE, "{kind}: {:#}", told.0);
        println!("gRPC {kind}: {} MiB in {:?}", stream >> 20, told.took());
    }
    failures(&shop);
    deadlines(&shop);
}

#[track_caller]
fn call(shop: &Shop, kind: &str, args: &[&str]) -> Told {
    let (.., patience) = lengths();
    shop.run(CLIENT, &[&["grpc", kind, "--url", GRPC], args].concat(), patience)
}

/// Status and message of an application's refusal arrive as they were sent, in a response without messages.
fn failures(shop: &Shop) {
    for code in ["3", "5", "8", "9", "13", "14", "16"] {
        let told = call(shop, "fail", &["--code", code, "--message", "as the test asked, 100%"]);
        assert_eq!(told.0["code"].to_string(), code, "{:#}", told.0);
        assert_eq!(told.0["message"], "as the test asked, 100%", "{:#}", told.0);
        assert_eq!(told.0["reason"], json!(null), "the waypoint answered: {:#}", told.0);
    }
    // Failure { code: 5 } in a frame of gRPC.
    let args = [
        "--http2",
        "--method",
        "POST",
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
        "--body-hex",
        "00000000020805",
    ];
    let told = shop.get(CLIENT, &format!("{GRPC}/ambit.test.Echo/Fail"), &args);
    let seen = (told.status(), told.header("grpc-status"), told.count("/bytes"));
    assert_eq!(seen, (200, "5", 0), "trailers only: {:#}", told.0);
}

/// A caller's deadline reaches the application, and is kept where the application does not.
fn deadlines(shop: &Shop) {
    let told = call(shop, "sleep", &["--pause-ms", "10", "--deadline", "5s"]);
    let left = told.0["deadline_ms"].as_u64();
    assert!(left.is_some_and(|left| (1..=5000).contains(&left)), "no deadline arrived: {:#}", told.0);
    let told = call(shop, "sleep", &["--pause-ms", "20000", "--deadline", "500ms"]);
    assert_eq!((&told.0["ok"], &told.0["code"]), (&json!(false), &json!(4)), "{:#}", told.0);
    let took = told.took();
    assert!(took >= Duration::from_millis(450) && took < Duration::from_millis(500) + SOON, "{took:?}");
    // The client itself keeps no time here: whoever answers 4 is behind the waypoint, or it is the waypoint.
    let args = [
        "--http2",
        "--method",
        "POST",
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
        "--header",
        "grpc-timeout: 500m",
        "--body-hex",
        "000000000408a09c01",
    ];
    let told = shop.get(CLIENT, &format!("{GRPC}/ambit.test.Echo/Sleep"), &args);
    let in_trailers = told.0["trailers"]["grpc-status"][0].as_str().unwrap_or_default();
    assert!(told.header("grpc-status") == "4" || in_trailers == "4", "{:#}", told.0);
    assert!(told.took() < Duration::from_millis(500) + SOON, "{:#}", told.0);
}

#[test]
fn a_websocket_stays_open_in_silence_and_carries_much() {
    let Some(shop) = Shop::up("wp-websocket", &[]) else { return };
    let (_, bytes, idle, patience) = lengths();
    let (idle, bytes) = (idle.to_string(), bytes.to_string());
    let before = shop.waypoint_rss_kib();
    let args = ["ws", "--url", &format!("{WEB}/ws"), "--idle", &idle, "--bytes", &bytes];
    let told = shop.run(CLIENT, &args, patience);
    assert_eq!((told.error(), &told.0["sha256_ok"]), ("", &json!(true)), "{:#}", told.0);
    assert_eq!(told.count("/bytes").to_string(), bytes, "{:#}", told.0);
    grew_little("WebSocket", before, shop.waypoint_rss_kib());
}

#[test]
fn large_bodies_pass_without_being_held() {
    let Some(shop) = Shop::up("wp-bodies", &[]) else { return };
    let (_, length, _, patience) = lengths();
    let bytes = length.to_string();
    let before = shop.waypoint_rss_kib();
    for http2 in [&[][..], &["--http2"]] {
        // HTTP/2 where the service speaks it: what goes to the other is told as HTTP/1.1.
        let base = if http2.is_empty() { WEB } else { GRPC };
        let (up, down) = (format!("{base}/upload"), format!("{base}/bytes/{length}"));
        for (way, url) in [("upload", up), ("download", down)] {
            let mut transfer =
                shop.begin(CLIENT, &[&[way, "--url", &url, "--bytes", &bytes], http2].concat());
            let mut most = before;
            while transfer.is_running() {
                most = most.max(shop.waypoint_rss_kib());
            }
            let told = super::shop::told(&transfer.finish(patience));
            let seen = (told.status(), told.error(), &told.0["sha256_ok"], told.count("/bytes"));
            assert_eq!(seen, (200, "", &json!(true), length), "{way} {http2:?}: {:#}", told.0);
            grew_little(&format!("{way} {http2:?}"), before, most);
        }
    }
    slow_reader(&shop, before);
}

/// Nobody reads what an application sends as fast as it can: it is kept where it comes from.
fn slow_reader(shop: &Shop, before: u64) {
    let url = format!("{WEB}/bytes/{}", 1_u64 << 30);
    let script = format!("curl -sS --limit-rate 64k -m 6 -o /dev/null {url}; true");
    let mut reader = shop.lab.spawn(CLIENT, &["sh", "-c", &script]);
    let mut most = before;
    while reader.is_running() {
        most = most.max(shop.waypoint_rss_kib());
    }
    drop(reader.finish(Duration::from_secs(30)).ok());
    grew_little("a slow reader", before, most);
}

#[track_caller]
fn grew_little(what: &str, before: u64, most: u64) {
    println!("{what}: the waypoint's memory went from {before} to {most} KiB");
    assert!(most < before + GROWTH_KIB, "{what}: from {before} to {most} KiB");
}
