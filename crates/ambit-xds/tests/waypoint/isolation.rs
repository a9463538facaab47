//! Who gets what: a waypoint its own, a node nothing of a waypoint's.

use std::sync::Arc;

use ambit_xds::Kind;
use ambit_xds::client::{Client, Content, Limits, Mode};
use ambit_xds::node::WaypointKey;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use ambit_xds::server::{self, Connection, Delta, WaypointDelta};

use super::rig::*;

#[test]
fn a_waypoint_gets_nothing_of_another() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let other = WaypointKey::new("shop", "other");
    let theirs = frontends(vec![routes("secret", &["/"], "cart", 1)]);
    assert!(rig.resources.apply_waypoint(2, &other, theirs));
    assert_eq!(rig.publish(Delta::default(), WaypointDelta::default()), Vec::<String>::new());
    assert_eq!(rig.resources.len(Kind::Frontend), 2);
    assert_eq!(rig.resources.waypoints().collect::<Vec<_>>(), [&other, &wp()]);
    let name = "shop/secret.example/80";
    assert!(rig.resources.version_for(Some(&other), Kind::Frontend, name).is_some());
    assert_eq!(rig.resources.version_for(Some(&wp()), Kind::Frontend, name), None);
    assert_eq!(rig.resources.version(Kind::Frontend, name), None);
}

#[test]
fn each_client_is_served_its_kinds_only() {
    let rig = Rig::new();
    let latest = || Arc::new(rig.resources.clone());
    let node = Connection::new("n1", latest(), server::Limits::default());
    let waypoint = Connection::for_waypoint("n1", wp(), latest(), server::Limits::default());
    let rows = [
        (node, Kind::Frontend, "Address and Authorization are"),
        (
            waypoint,
            Kind::Authorization,
            "Address, ExtensionProvider, RequestAuthentication, HttpPolicy, Destination and Frontend are",
        ),
    ];
    for (mut connection, kind, served) in rows {
        let request = DeltaDiscoveryRequest { type_url: kind.url().into(), ..Default::default() };
        let error = connection.handle_request(request, rig.now).unwrap_err().to_string();
        assert_eq!(error, format!("type {:?} is not served; {served}", kind.url()));
    }
}

#[test]
fn to_a_node_a_waypoints_resources_are_what_it_never_asked_for() {
    let mut client = Client::new(node(), Mode::Wildcard, Limits::default());
    let types: Vec<String> = client.on_connect().into_iter().map(|request| request.type_url).collect();
    assert_eq!(types, Kind::ALL.map(Kind::url));
    let response = DeltaDiscoveryResponse { type_url: Kind::Frontend.url().into(), ..Default::default() };
    let (update, receipt) = client.handle_response(response);
    assert_eq!(update.content, Content::Unknown { type_url: Kind::Frontend.url().into() });
    assert!(receipt.applied(&mut client).request.is_some(), "acknowledged all the same");
    assert!(!client.is_synced());
}
