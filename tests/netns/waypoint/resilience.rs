//! Row 5, attempts: upstreams that fail, hang, break off and drip, with exact counts of what reached them.

use std::time::Duration;

use ambit_tests::lab::soak;
use serde_json::{Value, json};

use super::shop::{CLIENT, PODS, SOON, Shop, V1, WEB, backend, route, traffic};

/// The pod behind [`V1`].
const POD: [&str; 1] = [PODS[0]];

#[test]
fn retries_are_counted_exactly() {
    let Some(shop) = Shop::up("wp-retries", &[]) else { return };
    let backoff = json!({"base": "5ms", "max": "10ms"});
    let retry = json!({"attempts": 2, "conditions": ["connect-failure", "reset"], "codes": [503], "backoff": backoff});
    let spec = json!({"retry": retry, "retryBudget": {"percent": 100, "minRetries": 100}});
    // Path, method, status at the client, requests at the application.
    let rows = [
        ("/fail/0/503", "GET", 200, 1),
        ("/fail/1/503", "GET", 200, 2),
        ("/fail/2/503", "GET", 200, 3),
        ("/fail/3/503", "GET", 503, 3),
        ("/fail/2/503", "PUT", 200, 3),
        ("/fail/2/503", "POST", 503, 1),
        ("/fail/2/500", "GET", 500, 1),
        ("/status/404", "GET", 404, 1),
        ("/reset-before", "GET", 503, 3),
        ("/reset-before", "POST", 503, 1),
    ];
    shop.under(&traffic("web-v1", spec), || {
        for (row, (path, method, status, requests)) in rows.into_iter().enumerate() {
            shop.reset_counts();
            let told = shop.get(CLIENT, &format!("{V1}{path}?key={row}"), &["--method", method]);
            let taken = shop.taken(&POD, path);
            assert_eq!((told.status(), taken), (status, requests), "{method} {path}: {:#}", told.0);
        }
    });
    consent(&shop);
}

/// What is not safe to repeat is repeated where its owner says so, whole.
fn consent(shop: &Shop) {
    let retry = json!({"attempts": 2, "codes": [503], "consent": "AnyMethod", "backoff": {"base": "5ms", "max": "10ms"}});
    shop.under(&traffic("web-v1", json!({"retry": retry})), || {
        let args = ["--method", "POST", "--body-bytes", "1000"];
        let told = shop.get(CLIENT, &format!("{V1}/fail/2/503?key=consent"), &args);
        assert_eq!((told.status(), shop.taken(&POD, "/fail/2/503")), (200, 3), "{:#}", told.0);
    });
}

#[test]
fn what_hangs_breaks_off_or_drips_ends_in_time() {
    let Some(shop) = Shop::up("wp-timeouts", &[]) else { return };
    let limit = Duration::from_millis(500);
    let rules = json!([{"timeouts": {"request": "500ms"}, "backendRefs": [backend("web-v1", 1)]}]);
    shop.under(&route("timeouts", "web-v1", &rules), || {
        let told = shop.get(CLIENT, &format!("{V1}/sleep/5"), &[]);
        assert_eq!(told.status(), 200, "{:#}", told.0);
        let told = shop.get(CLIENT, &format!("{V1}/hang"), &[]);
        let seen = (told.status(), told.header("x-ambit-reason"), shop.taken(&POD, "/hang"));
        assert_eq!(seen, (504, "AMB3008", 1), "{:#}", told.0);
        assert!(told.took() >= limit && told.took() < limit + SOON, "{:?}", told.took());
        // Ten seconds long, if nobody ended it.
        let told = shop.get(CLIENT, &format!("{V1}/drip/100/100"), &[]);
        assert_eq!(told.status(), 200, "{:#}", told.0);
        assert!(!told.error().is_empty(), "a drip that was cut looks whole: {:#}", told.0);
        assert!(told.took() < limit + SOON, "{:?}", told.took());
    });
    let rules = json!([{
        "timeouts": {"request": "5s", "backendRequest": "200ms"},
        "retry": {"attempts": 2, "codes": [504], "backoff": "10ms"},
        "backendRefs": [backend("web-v1", 1)],
    }]);
    shop.under(&route("per-try", "web-v1", &rules), || {
        let told = shop.get(CLIENT, &format!("{V1}/hang"), &[]);
        assert_eq!((told.status(), shop.taken(&POD, "/hang")), (504, 3), "{:#}", told.0);
        assert!(told.took() < Duration::from_millis(600) + SOON, "{:?}", told.took());
    });
    shop.reset_counts();
    let told = shop.get(CLIENT, &format!("{V1}/reset"), &[]);
    assert!(!told.error().is_empty() && told.count("/bytes") < 64 * 1024, "taken for whole: {:#}", told.0);
    assert_eq!(shop.taken(&POD, "/reset"), 1, "an answer that had begun was asked for again");
}

#[test]
fn an_endpoint_that_fails_is_left_out_for_a_while() {
    let Some(shop) = Shop::up("wp-outlier", &[]) else { return };
    let outlier =
        json!({"consecutiveErrors": 3, "interval": "1s", "ejection": "60s", "ejectedPercentMax": 50});
    let path = "/only/v1/500";
    shop.under(&traffic("web", json!({"outlier": outlier})), || {
        let load = shop.load(&format!("{WEB}{path}"), &["--requests", "60"]);
        let seen = (load.count("/by_status/500"), load.count("/by_status/200"));
        assert_eq!(seen, (3, 57), "{:#}", load.0);
        assert_eq!(PODS.map(|pod| shop.taken(&[pod], path)), [3, 57]);
    });
    // Both fail: half of them at most are left out, the other answers for itself.
    let path = "/status/500";
    shop.under(&traffic("web", json!({"outlier": outlier})), || {
        let load = shop.load(&format!("{WEB}{path}"), &["--requests", "60"]);
        assert_eq!((load.count("/by_status/500"), shop.taken(&PODS, path)), (60, 60), "{:#}", load.0);
    });
}

#[test]
fn a_client_stays_with_its_pod() {
    let Some(shop) = Shop::up("wp-sessions", &[]) else { return };
    let url = format!("{WEB}/session");
    let stays = |first: &str, line: &str| {
        let load = shop.load(&url, &["--requests", "50", "--concurrency", "2", "--header", line]);
        assert_eq!(load.count(&format!("/by_peer/{first}")), 50, "{line}: {:#}", load.0);
    };
    // Of the service, by cookie.
    shop.under(&traffic("web", json!({"sessionPersistence": {"sessionName": "stay"}})), || {
        let first = shop.get(CLIENT, &url, &[]);
        let cookie = first.header("set-cookie");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{:#}", first.0);
        let mark = cookie.split(';').next().unwrap_or_default();
        assert!(mark.starts_with("stay=") && !mark.contains("web"), "{cookie}");
        stays(first.header("x-peer"), &format!("cookie: {mark}"));
        // Nobody stays who does not say so, or says what was never told.
        let load = shop.load(&url, &["--requests", "50", "--header", "cookie: stay=1.2.3"]);
        assert!(["v1", "v2"].iter().all(|peer| load.count(&format!("/by_peer/{peer}")) > 0), "{:#}", load.0);
    });
    // Of a rule, by header, against its weights.
    let rule = |v1, v2| {
        let kept = json!({"sessionName": "x-stay", "type": "Header"});
        json!([{"sessionPersistence": kept, "backendRefs": [backend("web-v1", v1), backend("web-v2", v2)]}])
    };
    let mut mark = String::new();
    shop.under(&route("kept", "web", &rule(0, 1)), || {
        let first = shop.get(CLIENT, &url, &[]);
        assert_eq!(first.header("x-peer"), "v2", "{:#}", first.0);
        mark = format!("x-stay: {}", first.header("x-stay"));
    });
    shop.under(&route("kept", "web", &rule(1, 0)), || {
        assert_eq!(shop.get(CLIENT, &url, &[]).header("x-peer"), "v1");
        stays("v2", &mark);
    });
}

#[test]
fn a_storm_of_failures_makes_no_storm_of_retries() {
    let Some(shop) = Shop::up("wp-storm", &[]) else { return };
    let minimum = 5;
    let spec = json!({
        "retry": {"attempts": 5, "codes": [503], "backoff": {"base": "1ms", "max": "2ms"}},
        "retryBudget": {"percent": 20, "interval": "10s", "minRetries": minimum, "minInterval": "1s"},
    });
    let (requests, text): (u64, &str) = if soak() { (20_000, "20000") } else { (1000, "1000") };
    let path = "/status/503";
    shop.under(&traffic("web-v1", spec), || {
        let load = shop.load(&format!("{V1}{path}"), &["--requests", text, "--concurrency", "8"]);
        let (failed, taken) = (load.count("/by_status/503"), shop.taken(&POD, path));
        assert_eq!((load.count("/sent"), failed), (requests, requests), "{:#}", load.0);
        let free = minimum * (load.took().as_secs() + 2);
        let most = requests + requests / 5 + free;
        println!("{requests} requests made {taken} attempts, at most {most}");
        assert!(taken > requests, "nothing was tried again: {taken} attempts");
        assert!(taken <= most, "{taken} attempts of {requests} requests, at most {most}");
        let told: Value = shop.get(CLIENT, &format!("{V1}/after"), &[]).0;
        assert_eq!(told["status"], 200, "{told:#}");
    });
}
