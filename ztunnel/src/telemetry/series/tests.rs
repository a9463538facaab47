//! Which series there are, while pods come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_hbone::{Baggage, ConnId};
use ambit_runtime::access_log::Direction;
use ambit_runtime::metrics::{IDLE, Source as _};
use ambit_types::{Identity, ServiceKey, TrustDomain, Uid, Workload};

use super::{LINGER, NAMES_MAX, PAIRS_MAX, STRANGERS_MAX, Series};
use crate::flow::{End, Flow, Path, Route};

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
fn start() -> Instant {
    Instant::now()
}

/// An end that is the pod of this name, of the controller before the dash.
fn pod(name: &str) -> End {
    let mut workload = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    workload.workload_name = name.split('-').next().unwrap_or_default().into();
    let addr: SocketAddr = ([10, 0, 0, 1], 80).into();
    End { addr: Some(addr), workload: Some(Arc::new(workload)), ..End::default() }
}

fn flow(src: End, dst: End) -> Flow {
    let route = Route { dst, ..Route::default() };
    Flow::new(ConnId::from_random(1), Direction::Inbound, Path::Hbone, src, route, start())
}

fn text(series: &Series) -> String {
    let mut text = String::new();
    series.write(&mut text);
    text
}

/// How many series name a workload.
fn named(series: &Series, workload: &str) -> usize {
    let label = format!("_workload=\"{workload}\"");
    text(series).lines().filter(|line| line.contains(&label)).count()
}

fn all_but(gone: &str) -> impl Fn(&Uid) -> bool {
    move |uid| !uid.as_str().ends_with(&format!("/{gone}"))
}

/// Counts a whole connection.
fn connection(series: &Series, flow: &Flow, now: Instant) {
    let pair = series.of(flow, now);
    pair.open();
    pair.moved(3, 4);
    pair.close("-", false);
}

#[test]
fn series_go_with_either_end_and_stay_with_both() {
    for gone in ["a", "b"] {
        let (series, now) = (Series::default(), start());
        connection(&series, &flow(pod("a"), pod("b")), now);
        connection(&series, &flow(pod("c"), pod("d")), now);
        assert_eq!((named(&series, "a"), named(&series, "c")), (4, 4));
        series.sweep(now + LINGER - SECOND, all_but(gone));
        assert_eq!(named(&series, "a"), 4, "a scrape has to see the last values");
        series.sweep(now + LINGER, all_but(gone));
        assert_eq!((named(&series, "a"), named(&series, "c")), (0, 4), "{gone} is gone");
        series.sweep(now + IDLE - SECOND, |_| true);
        assert_eq!(named(&series, "c"), 4);
        series.sweep(now + IDLE, |_| true);
        assert_eq!(text(&series), "");
    }
}

#[test]
fn an_open_connection_keeps_its_series() {
    let (series, now) = (Series::default(), start());
    let flow = flow(pod("a"), pod("b"));
    let pair = series.of(&flow, now);
    pair.open();
    series.sweep(now + 2 * IDLE, |_| false);
    assert_eq!(named(&series, "a"), 3);
    drop(pair);
    series.of(&flow, now + 2 * IDLE).close("-", false);
    series.sweep(now + 2 * IDLE + LINGER, |_| false);
    assert_eq!(text(&series), "");
}

/// Labels name controllers, so a counter of several pods does not go back when one of them leaves.
#[test]
fn pods_of_one_controller_share_their_series() {
    let (series, now) = (Series::default(), start());
    connection(&series, &flow(pod("web-1"), pod("db")), now);
    connection(&series, &flow(pod("web-2"), pod("db")), now);
    series.sweep(now + LINGER, all_but("web-1"));
    let opened = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{");
    let all = text(&series);
    let lines: Vec<&str> = all.lines().filter(opened).collect();
    assert!(lines.len() == 1 && lines[0].ends_with(" 2"), "{lines:?}");
    series.sweep(now + LINGER, |uid| uid.as_str().ends_with("/db"));
    assert_eq!(text(&series), "");
}

#[test]
fn beyond_the_bound_all_are_counted_as_one() {
    let (series, now) = (Series::default(), start());
    for n in 0..PAIRS_MAX + 2 {
        connection(&series, &flow(pod(&format!("p{n}")), pod("db")), now);
    }
    let all = text(&series);
    let lines = all.lines().filter(|l| l.starts_with("istio_tcp_connections_opened_total{")).count();
    assert_eq!(lines, PAIRS_MAX + 1);
    let rest = "istio_tcp_connections_opened_total{overflow=\"true\",response_flags=\"-\"} 2";
    assert!(all.lines().any(|line| line == rest));
}

/// One series of the first family.
fn opened(flow: &Flow) -> String {
    let series = Series::default();
    series.of(flow, start()).open();
    let all = text(&series);
    let line = all.lines().find(|line| line.starts_with("istio_tcp_connections_opened_total{"));
    line.expect("it was opened").to_owned()
}

/// Names, order and values are those that dashboards and Kiali read.
#[test]
fn labels_are_those_of_the_contract() {
    let service = ServiceKey::new("shop", "db.example.com");
    let mut plain = flow(pod("web-1"), pod("db-1"));
    plain.path = Path::Plaintext;
    plain.route.service = Some(service);
    plain.route.service_name = Some("orders-db".into());
    let want = "istio_tcp_connections_opened_total{reporter=\"destination\",source_workload=\"web\",\
                source_canonical_service=\"unknown\",source_canonical_revision=\"unknown\",\
                source_workload_namespace=\"shop\",source_principal=\"unknown\",source_app=\"unknown\",\
                source_version=\"unknown\",source_cluster=\"Kubernetes\",destination_service=\"db.example.com\",\
                destination_service_namespace=\"shop\",destination_service_name=\"orders-db\",\
                destination_workload=\"db\",destination_canonical_service=\"unknown\",\
                destination_canonical_revision=\"unknown\",destination_workload_namespace=\"shop\",\
                destination_principal=\"spiffe://cluster.local/ns/shop/sa/default\",destination_app=\"unknown\",\
                destination_version=\"unknown\",destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",\
                response_flags=\"-\",connection_security_policy=\"unknown\",source_region=\"unknown\",\
                source_zone=\"unknown\",destination_region=\"unknown\",destination_zone=\"unknown\"} 1";
    assert_eq!(opened(&plain), want);
    // Without the name of its object a service goes by the first part of its host name.
    plain.route.service_name = None;
    assert!(opened(&plain).contains(",destination_service_name=\"db\","));
    let nobody = opened(&flow(End::default(), End::default()));
    assert!(nobody.ends_with(",connection_security_policy=\"mutual_tls\"} 1"), "{nobody}");
    let said =
        Arc::new(Baggage::parse("k8s.namespace.name=far,k8s.deployment.name=shop-v2,service.name=shop"));
    let told = opened(&flow(End { asserted: Some(said), ..End::default() }, pod("db")));
    assert!(
        told.contains("source_canonical_service=\"shop\"") && told.contains("source_app=\"shop-v2\""),
        "{told}"
    );
}

/// The text is what a scraper reads; strangers may put anything into their baggage.
#[test]
fn the_text_is_whole_whatever_a_peer_says_of_itself() {
    let (series, now) = (Series::default(), start());
    let asserted = Arc::new(Baggage::parse("k8s.namespace.name=a\"} 1\\,k8s.deployment.name=x\ny"));
    let src = End { asserted: Some(asserted), ..End::default() };
    let pair = series.of(&flow(src, pod("db")), now);
    pair.open();
    pair.close("-", false);
    pair.close("DENY", true);
    let all = text(&series);
    for line in all.lines() {
        assert!(line.starts_with("# TYPE istio_tcp_") || line.starts_with("istio_tcp_"), "{line:?}");
    }
    assert!(all.contains("source_workload_namespace=\"a\\\"} 1\\\\\","), "{all}");
    let denied = |line: &&str| line.contains("response_flags=\"DENY\"") && line.ends_with(" 1");
    assert_eq!(all.lines().filter(denied).count(), 2, "closed and failed: {all}");
    assert_eq!(all.lines().filter(|line| line.starts_with('#')).count(), 5);
}

/// Pods that come and go leave nothing, however many there were (row 5 of seeing).
#[test]
fn ten_thousand_pods_come_and_go_and_the_series_are_as_before() {
    let (series, mut now) = (Series::default(), start());
    let lasting = flow(pod("web"), pod("db"));
    connection(&series, &lasting, now);
    let base = text(&series).lines().count();
    let mut most = 0;
    for round in 0..100 {
        for one in 0..100 {
            connection(&series, &flow(pod(&format!("p{round}x{one}")), pod("db")), now);
        }
        connection(&series, &lasting, now);
        now += SECOND;
        let young = |uid: &Uid| uid.as_str().ends_with("/db") || uid.as_str().ends_with("/web");
        series.sweep(now, young);
        most = most.max(text(&series).lines().count());
    }
    // A minute of them is there at any time, and no more.
    let minute = usize::try_from(LINGER.as_secs()).unwrap() * 100 * 4;
    assert!(most <= base + minute, "{most} lines, {base} at the beginning");
    now += LINGER;
    connection(&series, &lasting, now);
    series.sweep(now, |uid| uid.as_str().ends_with("/db") || uid.as_str().ends_with("/web"));
    assert_eq!(text(&series).lines().count(), base);
}

/// A pod that discovery does not know, of this account, which calls itself so.
fn stranger(account: &str, name: &str) -> End {
    let said = format!("k8s.namespace.name=far,k8s.deployment.name={name}");
    End {
        identity: Some(Identity::new(TrustDomain::default(), "far", account)),
        asserted: Some(Arc::new(Baggage::parse(&said))),
        ..End::default()
    }
}

/// Opened connections of all series that have a label.
fn opened_with(series: &Series, label: &str) -> Vec<u64> {
    let all = text(series);
    let lines = all.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{"));
    let lines = lines.filter(|line| line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

/// A peer that calls itself something else each time takes no room from anybody, and all it does is counted as its own.
#[test]
fn names_that_a_peer_makes_up_are_few_and_then_unknown() {
    let (series, now) = (Series::default(), start());
    let many = u64::try_from(2 * PAIRS_MAX).unwrap();
    for n in 0..many {
        connection(&series, &flow(stranger("evil", &format!("made-up-{n}")), pod("db")), now);
    }
    let own = opened_with(&series, "source_principal=\"spiffe://cluster.local/ns/far/sa/evil\"");
    assert_eq!((own.len(), own.iter().sum::<u64>()), (NAMES_MAX + 1, many));
    let nameless = opened_with(&series, "source_workload=\"unknown\"");
    assert_eq!(nameless, [many - u64::try_from(NAMES_MAX).unwrap()]);
    // Nobody else is concerned.
    for (flow, name) in
        [(flow(stranger("good", "gate"), pod("db")), "gate"), (flow(pod("web"), pod("db")), "web")]
    {
        connection(&series, &flow, now);
        assert_eq!(named(&series, name), 4, "{name}");
    }
    assert!(opened_with(&series, "overflow=\"true\"").is_empty());
    series.sweep(now + IDLE, |_| true);
    assert_eq!(text(&series), "");
    connection(&series, &flow(stranger("evil", "late"), pod("db")), now + IDLE);
    assert_eq!(named(&series, "late"), 4, "there is room again");
}

/// With any number of pods to call, and of identities from elsewhere: pods of the mesh still have their places.
#[test]
fn strangers_leave_room_for_those_who_are_known() {
    let (series, now) = (Series::default(), start());
    let (accounts, pods) = (100, 150);
    for account in 0..accounts {
        for of in 0..pods {
            let src = stranger(&format!("evil-{account}"), &format!("made-up-{of}"));
            connection(&series, &flow(src, pod(&format!("d{of}"))), now);
        }
    }
    let all = opened_with(&series, "");
    assert_eq!(all.len(), STRANGERS_MAX + 1);
    assert_eq!(all.iter().sum::<u64>(), accounts * pods, "none is lost");
    connection(&series, &flow(pod("web"), pod("db")), now);
    assert_eq!(named(&series, "web"), 4);
}

/// What discovery knows, nobody's own word changes, and it takes one place whatever it says.
#[test]
fn a_pod_that_is_known_has_no_name_of_its_own() {
    let (series, now) = (Series::default(), start());
    let many = u64::try_from(PAIRS_MAX).unwrap() + 1;
    for n in 0..many {
        let asserted = stranger("evil", &format!("made-up-{n}")).asserted;
        connection(&series, &flow(End { asserted, ..pod("web") }, pod("db")), now);
    }
    assert_eq!(opened_with(&series, "source_workload=\"web\""), [many]);
    assert_eq!(opened_with(&series, ""), [many]);
}

/// However long a connection lived: what it moved last is there for a scrape after its end.
#[test]
fn the_time_of_a_pod_that_is_gone_begins_with_the_end_of_its_last_connection() {
    let (series, now) = (Series::default(), start());
    let pair = series.of(&flow(pod("a"), pod("b")), now);
    pair.open();
    let end = now + 10 * LINGER;
    pair.close("-", false);
    pair.touch(end);
    drop(pair);
    series.sweep(end + LINGER - SECOND, |_| false);
    assert_eq!(named(&series, "a"), 4);
    series.sweep(end + LINGER, |_| false);
    assert_eq!(text(&series), "");
}
