//! Workloads addressed by themselves: which of their ports the waypoint of their services serves, and whose rules hold.

use ambit_net::tunnel::client::TunnelError;
use ambit_types::{AppProtocol, Reason};
use hyper_util::rt::TokioIo;

use crate::rig::app::{App, Body, Executor, answer, text};
use crate::rig::client::{Read, read, request, request2};
use crate::rig::{Rig, Setup, service_key, start, within};

async fn http1_to(rig: &Rig, authority: &str) -> hyper::client::conn::http1::SendRequest<Body> {
    let stream = rig.connect_with(rig.tunnel().await, authority, &[]).await.expect("it is served");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    sender
}

async fn ask(rig: &Rig, authority: &str, line: &str) -> Read {
    let mut sender = http1_to(rig, authority).await;
    read(within(sender.send_request(request(line, &[], text("")))).await.unwrap()).await
}

/// The source's proxy sends connections to a workload's own address through the waypoint of a service before it.
#[tokio::test]
async fn a_workload_is_served_on_the_ports_of_its_bound_services() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}";
    let reads = "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}";
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy_of("web", deny);
    let setup = setup.service("api", AppProtocol::Http11, &[]).policy_of("api", reads);
    let mut setup = setup.service("bare", AppProtocol::Http11, &[]);
    setup.services[2].waypoint = None;
    setup.services[2].ports[0].target_port = 9090;
    for name in ["api", "bare"] {
        setup.workloads[0].services.insert(service_key(name), Vec::new());
    }
    setup.workloads[0].settings = Some(Default::default());
    let mut rig = setup.start().await;
    let pod = format!("{}:8080", app.ip);
    for (line, want) in [("GET /", 200), ("GET /admin", 403), ("POST /", 403), ("POST /admin", 403)] {
        assert_eq!(ask(&rig, &pod, line).await.status, want, "row {line}");
    }
    assert_eq!(app.got().len(), 1);
    for port in [9090, 80] {
        let authority = format!("{}:{port}", app.ip);
        let opened = rig.connect_with(rig.tunnel().await, &authority, &[]).await;
        let is_refused =
            matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. }));
        assert!(is_refused, "row {port}");
    }
    let mut kept = http1_to(&rig, &pod).await;
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    rig.change(|setup| setup.services.iter_mut().for_each(|service| service.waypoint = None));
    within(kept.ready()).await.unwrap();
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 421);
}

/// A waypoint that the workload names itself knows no rules of services that are bound to another one.
#[tokio::test]
async fn a_workload_bound_here_is_no_way_around_the_waypoint_of_its_service() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let here = setup.services[0].waypoint.clone();
    let mut elsewhere = here.clone().unwrap();
    elsewhere.destination = ambit_types::Destination::Hostname(service_key("other-waypoint"));
    setup.services[0].waypoint = Some(elsewhere.clone());
    // Another of its ports leads to the same one of the application.
    let also = ambit_types::service::Port { service_port: 81, ..setup.services[0].ports[0] };
    setup.services[0].ports.insert(0, also);
    setup.workloads[0].waypoint = here.clone();
    setup.workloads[0].settings = Some(Default::default());
    let mut rig = setup.start().await;
    let pod = format!("{}:8080", app.ip);
    for authority in [&*pod, "10.9.0.1:80", "10.9.0.1:81"] {
        let opened = rig.connect_with(rig.tunnel().await, authority, &[]).await;
        let is_refused =
            matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. }));
        assert!(is_refused, "row {authority}");
    }
    assert!(app.got().is_empty());
    // Both bound here: one knows all the rules.
    rig.change(|setup| setup.services[0].waypoint = here);
    let mut kept = http1_to(&rig, &pod).await;
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    // The workload leaves; the service's rules are no longer all.
    rig.change(|setup| setup.workloads[0].waypoint = Some(elsewhere));
    within(kept.ready()).await.unwrap();
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 421);
    assert_eq!(ask(&rig, "10.9.0.1:80", "GET /").await.status, 200);
    assert_eq!(app.got().len(), 2);
}

/// With another control plane a workload's own address is a way around the waypoints of its services, which users know.
#[tokio::test]
async fn other_control_planes_send_no_workloads_here() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let opened = rig.connect_with(rig.tunnel().await, &format!("{}:8080", app.ip), &[]).await;
    assert!(matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. })));
}

#[tokio::test]
async fn a_workload_speaks_what_its_service_declares() {
    let app = App::start("web-0", true, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    setup.workloads[0].settings = Some(Default::default());
    let rig = setup.start().await;
    let stream = rig.connect_with(rig.tunnel().await, &format!("{}:8080", app.ip), &[]).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(Executor, io).await.unwrap();
    start(connection);
    let answered = read(sender.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "ok"));
}
