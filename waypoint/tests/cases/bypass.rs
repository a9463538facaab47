//! Tunnel requests that are none of this waypoint's business.

use ambit_net::tunnel::client::TunnelError;
use ambit_types::{AppProtocol, Reason};

use crate::rig::Setup;
use crate::rig::app::{App, answer};

#[tokio::test]
async fn only_what_is_bound_to_this_waypoint_is_served() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).service(
        "bare",
        AppProtocol::Http11,
        &[app.ip],
    );
    setup.services[1].waypoint = None;
    let mut other = setup.services[0].waypoint.clone().unwrap();
    other.destination = ambit_types::Destination::Hostname(crate::rig::service_key("other-waypoint"));
    let mut setup = setup.service("others", AppProtocol::Http11, &[app.ip]);
    setup.services[2].waypoint = Some(other);
    // It claims a pod's address, which stays the pod's.
    let mut setup = setup.service("claims", AppProtocol::Http11, &[app.ip]);
    setup.services[3].vips[0].ip = app.ip;
    let rig = setup.start().await;
    let pod = format!("{}:8080", app.ip);
    let claimed = format!("{}:80", app.ip);
    let own = rig.address.to_string();
    let own_app = format!("{}:80", rig.address.ip());
    for (authority, headers, want) in [
        ("10.9.0.1:80", &[][..], None),
        ("web.shop.svc.cluster.local:80", &[], None),
        ("10.9.0.1:81", &[], Some(Reason::UnknownDestination)),
        ("10.9.0.2:80", &[], Some(Reason::WaypointNotServing)),
        ("bare.shop.svc.cluster.local:80", &[], Some(Reason::WaypointNotServing)),
        ("10.9.0.3:80", &[], Some(Reason::WaypointNotServing)),
        (&pod, &[], Some(Reason::WaypointNotServing)),
        (&claimed, &[], Some(Reason::WaypointNotServing)),
        ("claims.shop.svc.cluster.local:80", &[], None),
        ("10.9.0.1:15008", &[], Some(Reason::ProxyPortTarget)),
        (&own, &[], Some(Reason::ProxyPortTarget)),
        (&own_app, &[], Some(Reason::LoopDetected)),
        ("10.9.9.9:80", &[], Some(Reason::LoopDetected)),
        ("127.0.0.1:80", &[], Some(Reason::UnknownDestination)),
        ("nobody.shop.svc.cluster.local:80", &[], Some(Reason::UnknownDestination)),
        ("10.9.0.1:80", &[("x-ambit-hop", "spiffe://cluster.local/ns/a/sa/b")], Some(Reason::LoopDetected)),
    ] {
        let opened = rig.connect_with(rig.tunnel().await, authority, headers).await;
        let refused = match opened {
            Ok(_) => None,
            Err(TunnelError::Refused { reason, .. }) => Some(reason),
            Err(error) => panic!("row {authority}: {error}"),
        };
        assert_eq!(refused, want, "row {authority} {headers:?}");
    }
    assert!(app.got().is_empty() && app.proxy.asked().is_empty());
}

#[tokio::test]
async fn what_a_tunnel_request_says_of_its_caller_is_not_believed() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let allow =
        "{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/admin]}}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy(allow).start().await;
    let lies = [("x-ambit-client", "spiffe://cluster.local/ns/shop/sa/admin")];
    let stream = rig.connect_with(rig.tunnel().await, "10.9.0.1:80", &lies).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    crate::rig::start(connection);
    let request = crate::rig::client::request("GET /", &[], crate::rig::app::text(""));
    assert_eq!(sender.send_request(request).await.unwrap().status(), 403);
    let admin = rig.tunnel_of(&crate::rig::identity("shop", "admin")).await;
    let stream = rig.connect_with(&admin, "10.9.0.1:80", &[]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    crate::rig::start(connection);
    let request = crate::rig::client::request("GET /", &[], crate::rig::app::text(""));
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(rig.until_written(2).await[0].source.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
}
