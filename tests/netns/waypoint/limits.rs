//! Row 5, limits: how much may be under way, how often one may call, and faults made on purpose.

use std::time::Duration;

use serde_json::json;

use super::shop::{CLIENT, GRPC, OTHER, PODS, SOON, Shop, V1, traffic};

/// The pod behind [`V1`].
const POD: [&str; 1] = [PODS[0]];

#[test]
fn no_more_is_under_way_than_may_be() {
    let Some(shop) = Shop::up("wp-limits", &[]) else { return };
    let ten = ["--requests", "10", "--concurrency", "10"];
    let requests = json!({"connections": {"requestsMax": 2}});
    shop.under(&traffic("web-v1", requests), || {
        let load = shop.load(&format!("{V1}/sleep/2000"), &ten);
        let seen =
            (load.count("/by_status/200"), load.count("/by_status/503"), shop.taken(&POD, "/sleep/2000"));
        assert_eq!(seen, (2, 8, 2), "{:#}", load.0);
        assert_eq!(shop.counts(POD[0]).count("/open_max"), 2);
    });
    let pending = json!({"connections": {"connectionsMax": 1, "pendingMax": 1}});
    shop.under(&traffic("web-v1", pending), || {
        let load = shop.load(&format!("{V1}/sleep/2000"), &ten);
        let seen =
            (load.count("/by_status/200"), load.count("/by_status/503"), shop.taken(&POD, "/sleep/2000"));
        assert_eq!(seen, (2, 8, 2), "one at work, one that waits: {:#}", load.0);
        assert_eq!(shop.counts(POD[0]).count("/open_max"), 1);
    });
    // Waiting costs nobody an answer while there is room to wait.
    let patient = json!({"connections": {"connectionsMax": 1, "pendingMax": 100}});
    shop.under(&traffic("web-v1", patient), || {
        let load = shop.load(&format!("{V1}/sleep/20"), &ten);
        let seen = (load.count("/by_status/200"), shop.counts(POD[0]).count("/open_max"));
        assert_eq!(seen, (10, 1), "{:#}", load.0);
    });
}

#[test]
fn nobody_calls_more_often_than_the_limit_of_the_key_says() {
    let Some(shop) = Shop::up("wp-rate", &[]) else { return };
    let local = json!({"requests": 5, "interval": "10m"});
    let by_user = json!({"rateLimits": [{
        "name": "users", "keys": [{"type": "Header", "name": "x-user"}], "local": local,
    }]});
    let url = format!("{V1}/limited");
    shop.under(&traffic("web-v1", by_user), || {
        for (user, sent, admitted) in [("x-user: a", "20", 5), ("x-user: b", "7", 5), ("x-user: a", "3", 0)] {
            let load = shop.load(&url, &["--requests", sent, "--header", user]);
            assert_eq!(load.count("/by_status/200"), admitted, "{user}: {:#}", load.0);
            let refused = sent.parse::<u64>().expect("a number") - admitted;
            assert_eq!(load.count("/by_status/429"), refused, "{user}: {:#}", load.0);
        }
        let told = shop.get(CLIENT, &url, &["--header", "x-user: a"]);
        assert!(told.status() == 429 && !told.header("retry-after").is_empty(), "{:#}", told.0);
        assert_eq!(shop.taken(&POD, "/limited"), 10, "what was refused reached the application");
    });
    let by_caller =
        json!({"rateLimits": [{"name": "callers", "keys": [{"type": "Caller"}], "local": local}]});
    shop.under(&traffic("web-v1", by_caller), || {
        for caller in [CLIENT, OTHER] {
            let load = shop.run(
                caller,
                &["load", "--url", &url, "--requests", "9", "--concurrency", "3"],
                Duration::from_secs(60),
            );
            let seen = (load.count("/by_status/200"), load.count("/by_status/429"));
            assert_eq!(seen, (5, 4), "{caller}: {:#}", load.0);
        }
        assert_eq!(shop.taken(&POD, "/limited"), 10);
    });
}

#[test]
fn faults_are_made_as_often_as_asked() {
    let Some(shop) = Shop::up("wp-faults", &[]) else { return };
    let pause = Duration::from_millis(400);
    shop.under(&traffic("web-v1", json!({"fault": {"delay": {"pause": "400ms", "percent": 100}}})), || {
        let told = shop.get(CLIENT, &format!("{V1}/late"), &[]);
        assert_eq!(told.status(), 200, "{:#}", told.0);
        assert!(told.took() >= pause && told.took() < pause + SOON, "{:?}", told.took());
    });
    shop.under(&traffic("web-v1", json!({"fault": {"abort": {"httpStatus": 418, "percent": 100}}})), || {
        let load = shop.load(&format!("{V1}/aborted"), &["--requests", "20"]);
        assert_eq!((load.count("/by_status/418"), shop.taken(&POD, "/aborted")), (20, 0), "{:#}", load.0);
    });
    shop.under(&traffic("web-v1", json!({"fault": {"abort": {"httpStatus": 503, "percent": 20}}})), || {
        let load = shop.load(&format!("{V1}/some"), &["--requests", "1000", "--concurrency", "4"]);
        let (aborted, served) = (load.count("/by_status/503"), load.count("/by_status/200"));
        assert_eq!((aborted + served, shop.taken(&POD, "/some")), (1000, served), "{:#}", load.0);
        // Five standard deviations of 1000 draws at one fifth.
        assert!(aborted.abs_diff(200) <= 64, "{aborted} of 1000 were aborted");
    });
    shop.under(&traffic("grpc", json!({"fault": {"abort": {"grpcStatus": 8, "percent": 100}}})), || {
        let told = shop.run(CLIENT, &["grpc", "unary", "--url", GRPC], Duration::from_secs(30));
        assert_eq!(told.0["code"], 8, "{:#}", told.0);
    });
}
