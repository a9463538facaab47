//! When what is open to an endpoint has to end.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::workload::Health;
use ambit_types::{AppProtocol, TunnelProtocol, Workload};

use super::Endpoint;

fn pod() -> Workload {
    let mut pod = Workload::new("Kubernetes//Pod/shop/web-0", "shop", "web-0");
    pod.addresses = vec![[10, 0, 0, 1].into()];
    pod.service_account = "web".into();
    pod.tunnel = TunnelProtocol::Hbone;
    pod
}

fn endpoint() -> Endpoint {
    let made = Endpoint::at(&Arc::new(pod()), 8080, AppProtocol::Tcp, None, clock::monotonic());
    made.expect("it has an address and a tunnel")
}

/// Whether what is open has to end by now, without any grace.
async fn is_cut(endpoint: &Endpoint) -> bool {
    // The second one is as late as can be: whatever is due is ready when it is.
    tokio::select! {
        biased;
        () = endpoint.cut(Duration::ZERO) => true,
        () = tokio::time::sleep(Duration::from_millis(20)) => false,
    }
}

#[tokio::test]
async fn only_a_record_that_is_gone_or_another_ones_cuts() {
    let unready = Workload { health: Health::Unhealthy, ..pod() };
    let uncaptured = Workload { tunnel: TunnelProtocol::None, ..pod() };
    let elsewhere = Workload { addresses: vec![[10, 0, 0, 2].into()], ..pod() };
    let another = Workload { service_account: "db".into(), ..pod() };
    for (name, record, want) in [
        ("as before", Some(pod()), false),
        ("not ready", Some(unready), false),
        ("without a tunnel", Some(uncaptured), false),
        ("elsewhere", Some(elsewhere), true),
        ("another identity", Some(another), true),
        ("gone", None, true),
    ] {
        let endpoint = endpoint();
        endpoint.retire();
        endpoint.follow(record.as_ref());
        assert_eq!(is_cut(&endpoint).await, want, "row {name}");
    }
}

#[tokio::test]
async fn a_record_that_comes_back_undoes_it() {
    let endpoint = endpoint();
    endpoint.retire();
    let mut cut = pin!(endpoint.cut(Duration::from_millis(50)));
    let mut cx = Context::from_waker(Waker::noop());
    endpoint.follow(None);
    assert!(matches!(cut.as_mut().poll(&mut cx), Poll::Pending), "the grace runs");
    endpoint.follow(Some(&pod()));
    assert!(matches!(cut.as_mut().poll(&mut cx), Poll::Pending), "and is over with");
    tokio::select! {
        () = &mut cut => panic!("cut by a grace that was undone"),
        () = tokio::time::sleep(Duration::from_millis(150)) => {}
    }
    endpoint.follow(None);
    tokio::time::timeout(Duration::from_secs(20), cut).await.expect("cut after the grace");
}
