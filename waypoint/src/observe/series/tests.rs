//! Series as a scrape shows them.

use std::time::{Duration, Instant};

use ambit_runtime::metrics::{IDLE, Source as _};
use ambit_types::Reason;

use super::{KEYS_MAX, LINGER, Series};
use crate::observe::Record;
use crate::observe::fixture::{Cast, pod};

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn text(series: &Series) -> String {
    let mut text = String::new();
    series.write(&mut text);
    text
}

/// Lines of a family, without the labels that all requests of the test have.
fn lines(series: &Series, family: &str) -> Vec<String> {
    let text = text(series);
    let of_family = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    of_family.map(str::to_owned).collect()
}

/// The sum of a family.
fn sum(series: &Series, family: &str) -> u64 {
    lines(series, family).iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

const ENDS: &str = "reporter=\"waypoint\",\
    source_workload=\"cart\",source_canonical_service=\"cart\",source_canonical_revision=\"v1\",\
    source_workload_namespace=\"shop\",source_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",\
    source_app=\"cart\",source_version=\"v1\",source_cluster=\"Kubernetes\",\
    destination_workload=\"web\",destination_workload_namespace=\"shop\",\
    destination_principal=\"spiffe://cluster.local/ns/shop/sa/web\",destination_app=\"web\",\
    destination_version=\"v1\",destination_service=\"web.shop.svc.cluster.local\",\
    destination_canonical_service=\"web\",destination_canonical_revision=\"v1\",\
    destination_service_name=\"web\",destination_service_namespace=\"shop\",\
    destination_cluster=\"Kubernetes\"";

#[test]
fn names_labels_order_and_buckets_are_those_of_istio() {
    let (cast, series, now) = (Cast::new(), Series::default(), start());
    series.request(&cast.request(), now);
    series.request(&Record { duration: Duration::from_millis(1), attempts: 3, ..cast.request() }, now);
    series.opened(&cast.connection(), now);
    series.closed(&cast.connection(), now);
    let http = format!(
        "{ENDS},request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"unknown\",\
         response_flags=\"-\",connection_security_policy=\"mutual_tls\""
    );
    let tcp = format!(
        "{ENDS},request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\""
    );
    let mut want = format!("# TYPE istio_requests counter\nistio_requests_total{{{http}}} 2\n");
    let bounds =
        "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000 +Inf";
    for (name, sum, from) in [
        ("istio_request_duration_milliseconds", "13", &[("1", 1), ("25", 2)][..]),
        ("istio_request_bytes", "6", &[("5", 2)]),
        ("istio_response_bytes", "1400", &[("1000", 2)]),
    ] {
        want += &format!("# TYPE {name} histogram\n");
        let mut count = 0;
        for bound in bounds.split(' ') {
            count = from.iter().find(|(at, _)| *at == bound).map_or(count, |(_, count)| *count);
            want += &format!("{name}_bucket{{{http},le=\"{bound}\"}} {count}\n");
        }
        want += &format!("{name}_sum{{{http}}} {sum}\n{name}_count{{{http}}} 2\n");
    }
    for (name, value) in [
        ("istio_tcp_connections_opened", 1),
        ("istio_tcp_received_bytes", 3),
        ("istio_tcp_sent_bytes", 700),
        ("istio_tcp_connections_closed", 1),
    ] {
        want += &format!("# TYPE {name} counter\n{name}_total{{{tcp}}} {value}\n");
    }
    want += "# TYPE ambit_waypoint_attempts counter\nambit_waypoint_attempts_total 4\n\
             # TYPE ambit_waypoint_retries counter\nambit_waypoint_retries_total 2\n\
             # TYPE ambit_waypoint_route_requests counter\n\
             ambit_waypoint_route_requests_total{route=\"shop/web\",rule=\"0\",\
             backend=\"web.shop.svc.cluster.local\"} 2\n";
    assert_eq!(text(&series), want);
}

#[test]
fn what_tells_series_apart_is_known_and_bounded() {
    let cast = Cast::new();
    let base = || cast.request();
    for (record, want) in [
        (Record { code: 0, flag: "DC", ..base() }, "response_code=\"0\""),
        (Record { code: 0, flag: "DC", ..base() }, "response_flags=\"DC\""),
        (Record { protocol: "http2", ..base() }, "request_protocol=\"http\""),
        (Record { protocol: "grpc", grpc_status: Some(5), ..base() }, "grpc_response_status=\"5\""),
        (
            Record { protocol: "grpc", grpc_status: Some(4_000_000), ..base() },
            "grpc_response_status=\"unknown\"",
        ),
        // Only a call of gRPC that was answered as one has such a status.
        (Record { grpc_status: Some(5), ..base() }, "grpc_response_status=\"unknown\""),
        (
            Record { protocol: "grpc", code: 503, grpc_status: Some(5), ..base() },
            "grpc_response_status=\"unknown\"",
        ),
        (Record { code: 599, ..base() }, "response_code=\"599\""),
        (Record { code: 600, ..base() }, "response_code=\"unknown\""),
        (Record { is_encrypted: false, ..base() }, "connection_security_policy=\"none\""),
        (Record { destination: None, ..base() }, "connection_security_policy=\"unknown\""),
        (Record { destination: None, ..base() }, "destination_workload=\"unknown\""),
        (Record { destination: None, ..base() }, "destination_canonical_revision=\"latest\""),
        // Who called is proven, whatever is known of the address.
        (
            Record { source: None, ..base() },
            "source_workload=\"unknown\",source_canonical_service=\"unknown\",\
            source_canonical_revision=\"latest\",source_workload_namespace=\"shop\",\
            source_principal=\"spiffe://cluster.local/ns/shop/sa/cart\"",
        ),
        // What a client writes is no label.
        (
            Record { path: "/\"evil", authority: "evil", method: Some("EVIL"), ..base() },
            "reporter=\"waypoint\"",
        ),
    ] {
        let series = Series::default();
        series.request(&record, start());
        let lines = lines(&series, "istio_requests_total");
        assert!(lines.len() == 1 && lines[0].contains(want), "{want} is missing in {lines:?}");
        assert!(!text(&series).to_lowercase().contains("evil"));
    }
}

#[test]
fn pods_of_one_controller_share_their_series() {
    let (cast, series, now) = (Cast::new(), Series::default(), start());
    let other = pod("web-2");
    series.request(&cast.request(), now);
    series.request(&Record { destination: Some(&other), ..cast.request() }, now);
    assert_eq!(lines(&series, "istio_requests_total").len(), 1);
    assert_eq!(sum(&series, "istio_requests_total"), 2);
}

#[test]
fn beyond_the_bound_all_are_counted_together_and_none_is_lost() {
    let (cast, series, now) = (Cast::new(), Series::default(), start());
    let many = u64::try_from(KEYS_MAX).unwrap() + 5;
    for n in 0..many {
        let pod = pod(&format!("web-{n}"));
        series.request(&Record { destination: Some(&pod), route: None, ..cast.request() }, now);
    }
    let all = lines(&series, "istio_requests_total");
    assert!(all.iter().any(|line| line.contains("overflow=\"true\"") && line.ends_with(" 5")), "{all:?}");
    assert_eq!(sum(&series, "istio_requests_total"), many);
}

#[test]
fn series_go_with_their_pods_and_after_long_silence() {
    let (cast, now) = (Cast::new(), start());
    for (exists, after, stays) in [
        (true, LINGER * 2, true),
        (true, IDLE + SECOND, false),
        (false, LINGER - SECOND, true),
        (false, LINGER + SECOND, false),
    ] {
        let series = Series::default();
        series.request(&Record { reason: Some(Reason::NoHealthyEndpoint), ..cast.request() }, now);
        series.closed(&cast.connection(), now);
        series.sweep(now + after, |_| exists);
        let text = text(&series);
        for family in ["istio_requests_total{", "istio_tcp_connections_closed_total{"] {
            assert_eq!(text.contains(family), stays, "row {exists} {after:?} {family}");
        }
    }
}

/// Whoever may make routes may make any number of them, one after the other.
#[test]
fn rules_are_told_apart_up_to_a_bound_and_none_of_their_requests_is_lost() {
    let (cast, series, now) = (Cast::new(), Series::default(), start());
    let many = u64::try_from(KEYS_MAX).unwrap() + 5;
    for n in 0..many {
        let route = format!("shop/made-up-{n} rule 0");
        series.request(&Record { route: Some(&route), ..cast.request() }, now);
    }
    let all = lines(&series, "ambit_waypoint_route_requests_total");
    assert_eq!((all.len(), sum(&series, "ambit_waypoint_route_requests_total")), (KEYS_MAX + 1, many));
    series.sweep(now + IDLE, |_| true);
    let all = lines(&series, "ambit_waypoint_route_requests_total");
    assert_eq!(all, ["ambit_waypoint_route_requests_total{overflow=\"true\"} 5"]);
}

/// All that an application may answer, of all that it may be asked: a bounded part of the places.
#[test]
fn what_an_application_answers_adds_few_series() {
    let (cast, series, now) = (Cast::new(), Series::default(), start());
    let mut many = 0;
    for code in 100..1000 {
        for status in 0..40 {
            for protocol in ["grpc", "http"] {
                series.request(&Record { code, grpc_status: Some(status), protocol, ..cast.request() }, now);
                many += 1;
            }
        }
    }
    assert_eq!(sum(&series, "istio_requests_total"), many);
    // 500 statuses and one for the rest, for either protocol, and 17 of gRPC.
    assert_eq!(lines(&series, "istio_requests_total").len(), 2 * 501 + 17);
}

/// The churn of a day, as the waypoint sees it: nothing is left of pods that are gone, and nothing of them was lost.
#[test]
fn ten_thousand_pods_come_and_go_and_the_series_are_as_before() {
    let (cast, series, mut now) = (Cast::new(), Series::default(), start());
    series.request(&cast.request(), now);
    let base = text(&series).lines().count();
    let (together, mut counted) = (50, 0);
    for batch in 0..10_000 / together {
        let pods: Vec<_> = (0..together).map(|n| pod(&format!("p{batch}x{n}"))).collect();
        for pod in &pods {
            series.request(&Record { source: Some(pod), ..cast.request() }, now);
            series.opened(&Record { source: Some(pod), ..cast.connection() }, now);
            series.closed(&Record { source: Some(pod), ..cast.connection() }, now);
        }
        let of_batch = |line: &&String| line.contains(&format!("source_workload=\"p{batch}x"));
        for family in ["istio_requests_total", "istio_tcp_connections_closed_total"] {
            let lines = lines(&series, family);
            let ones = lines.iter().filter(of_batch).filter(|line| line.ends_with(" 1")).count();
            assert_eq!(ones, together, "{family}");
            counted += ones;
        }
        now += LINGER;
        series.sweep(now, |uid| ["cart-1", "web-1"].iter().any(|name| uid.as_str().ends_with(name)));
        series.request(&cast.request(), now);
        assert_eq!(text(&series).lines().count(), base, "after batch {batch}");
    }
    assert_eq!(counted, 2 * 10_000);
}
