//! Row 8: a browser's WebSocket. The page that the browser shows at the end says how the conversation went; the waypoint
//! says that it was held through it.

use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, not_run, peer, wait_until};
use serde_json::{Value, json};

use super::called::{metrics, series};
use super::shop::{CLIENT, Shop, service};
use crate::cast::pod;

/// Where the site's server listens in its pod.
const SITE: u16 = 8000;
const HOST: &str = "site.shop.svc.cluster.local";
/// Messages of text that the page has echoed, and then the bytes of one more message.
const TEXTS: u64 = 100;
const BYTES: u64 = 1 << 20;
/// Longest time for the browser; the site keeps a page that does not tell its result for a minute.
const PATIENCE: Duration = Duration::from_secs(80);

#[test]
fn a_browsers_websocket_is_held_through_the_waypoint() {
    let found = Background::start(Command::new("sh").args(["-c", "command -v chromium"]));
    if found.finish(Duration::from_secs(10)).code != Some(0) {
        not_run("chromium is not installed; install it with: xtask/need.sh test");
        return;
    }
    let more = [
        pod("shop/site", "node2", &["python3", &peer("browser.py"), &SITE.to_string()]),
        service("shop/site", &json!({"app": "site"}), 80, SITE, "http"),
    ];
    let Some(shop) = Shop::up("wp-browser", &more) else { return };
    let url = format!("http://{HOST}/");
    wait_until("the site answers", Duration::from_secs(20), || shop.get(CLIENT, &url, &[]).status() == 200);
    let before = upgraded_bytes(&shop);
    let seen = shown(&shop, &url);
    let want = json!({"texts": TEXTS, "bytes": BYTES, "code": 1000, "clean": true, "error": ""});
    assert_eq!(seen, want, "what the browser saw of its conversation");
    recorded(&shop);
    wait_until("the waypoint has counted what it carried", Duration::from_secs(10), || {
        let now = upgraded_bytes(&shop);
        now.iter().zip(before).all(|(now, before)| *now >= before + BYTES)
    });
}

/// Opens the site in a browser in the client's pod; what the page tells once it is loaded.
#[track_caller]
fn shown(shop: &Shop, url: &str) -> Value {
    let home = shop.lab.folder("browser");
    let (environment, profile) = (format!("HOME={home}"), format!("--user-data-dir={home}/profile"));
    let command = [
        "env",
        &environment,
        "chromium",
        "--headless=new",
        // There are no users in a pod to be kept apart, and little memory at /dev/shm in some.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        // Nothing but the page is asked for.
        "--disable-background-networking",
        "--disable-component-update",
        &profile,
        "--dump-dom",
        url,
    ];
    let output = shop.lab.spawn(CLIENT, &command).finish(PATIENCE);
    assert_eq!(output.code, Some(0), "chromium: {}\n{}", output.stdout, output.stderr);
    let result =
        output.stdout.split_once("<pre id=\"result\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (text, _) = result.unwrap_or_else(|| panic!("another page was shown: {output:?}"));
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in what the page told: {output:?}"))
}

/// The waypoint has recorded one conversation, which it let through.
#[track_caller]
fn recorded(shop: &Shop) {
    let mut found = Vec::new();
    wait_until("the conversation is recorded", Duration::from_secs(10), || {
        found = shop.lab.flows(&["--from-pod", CLIENT]);
        found.retain(|flow| flow["path"] == "waypoint" && flow["http"]["path"] == "/talk");
        !found.is_empty()
    });
    let [flow] = &found[..] else { panic!("recorded more than once: {found:#?}") };
    let seen = (&flow["verdict"], &flow["service"], &flow["http"]["status"]);
    assert_eq!(seen, (&json!("allowed"), &json!(HOST), &json!(101)), "{flow:#}");
}

/// Bytes that the waypoint has carried on upgraded connections, from clients and to them.
#[track_caller]
fn upgraded_bytes(shop: &Shop) -> [u64; 2] {
    let text = metrics(shop);
    let all = series(&text, "ambit_waypoint_upgraded_bytes_total");
    ["up", "down"].map(|direction| {
        let of_it = all.iter().filter(|(labels, _)| labels.get("direction") == Some(&direction));
        of_it.map(|(_, bytes)| bytes).sum()
    })
}
