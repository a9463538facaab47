//! What a change of policy says of connections that were seen.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_state::{Change as Update, Snapshot, World};
use ambit_types::{Reason, TunnelProtocol, Workload};

use super::*;
use crate::FlowEnd;
use crate::suggest::{Allow, AllowRule, Caller};

fn workload(name: &str, last: u8) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    workload.service_account = name.into();
    workload.workload_name = name.into();
    workload.addresses = vec![IpAddr::from([10, 0, 0, last])];
    workload.tunnel = TunnelProtocol::Hbone;
    workload.node = format!("node{last}").into();
    workload.settings = Some(Arc::default());
    workload
}

/// A mesh of three pods; callers may use port 80 of everybody, if there is a list of them.
fn mesh(callers: Option<&[&str]>) -> Arc<Snapshot> {
    let pods = [("web", 1), ("batch", 2), ("cart", 3)].map(|(name, last)| workload(name, last));
    let rule = |callers: &[&str]| AllowRule {
        callers: pods
            .iter()
            .filter(|pod| callers.contains(&&*pod.name))
            .map(|pod| Caller::Identity(pod.identity()))
            .collect(),
        ports: [80].into(),
    };
    let allow = callers.map(|callers| Allow {
        name: "allow".to_owned(),
        selector: BTreeMap::new(),
        rules: vec![rule(callers)],
    });
    let policy = allow.map(|allow| Update::Policy(Arc::new(allow.policy("shop"))));
    let pods = pods.clone().into_iter().map(|pod| Update::Workload(Arc::new(pod)));
    World::new("").apply(pods.chain(policy)).snapshot
}

fn flow(from: &str, direction: &str, id: &str, time: &str) -> Flow {
    let end = |name: &str| FlowEnd {
        workload: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        ..FlowEnd::default()
    };
    Flow {
        time: time.to_owned(),
        direction: Some(direction.to_owned()),
        verdict: "allowed".to_owned(),
        path: "hbone".to_owned(),
        conn_id: id.to_owned(),
        src: end(from),
        dst: end("cart"),
        hbone_addr: Some("10.0.0.3:80".to_owned()),
        connections: 1,
        ..Flow::default()
    }
}

#[test]
fn only_what_would_end_otherwise_is_told() {
    let (open, web) = (mesh(None), mesh(Some(&["web"])));
    let flows = [
        flow("web", "inbound", "01", "2026-01-01T00:00:00.000Z"),
        flow("batch", "outbound", "02", "2026-01-01T00:00:01.000Z"),
        flow("batch", "inbound", "02", "2026-01-01T00:00:01.000Z"),
        flow("batch", "inbound", "03", "2026-01-01T00:00:02.000Z"),
    ];
    let diff = diff(&View::new(&open), &View::new(&web), &flows);
    assert_eq!((diff.compared, diff.unclear), (2, 0));
    let [change] = &diff.changes[..] else { panic!("{:#?}", diff.changes) };
    assert_eq!((&*change.source, &*change.destination), ("shop/batch", "10.0.0.3:80"));
    assert_eq!((change.connections, &*change.last_seen), (2, "2026-01-01T00:00:02.000Z"));
    assert_eq!(change.conn_id.as_deref(), Some("03"), "the last one");
    assert_eq!(change.before.verdict, Verdict::Allow);
    assert_eq!(change.after.code.map(|code| code.0), Some(Reason::PolicyDenied));
    let same = super::diff(&View::new(&web), &View::new(&web), &flows);
    assert!(same.changes.is_empty());
}

#[test]
fn refusals_come_first_and_what_says_too_little_is_counted() {
    let (web, batch) = (mesh(Some(&["web"])), mesh(Some(&["batch"])));
    let mut silent = flow("web", "inbound", "04", "2026-01-01T00:00:00.000Z");
    silent.hbone_addr = None;
    let flows = [
        flow("batch", "inbound", "01", "2026-01-01T00:00:00.000Z"),
        flow("batch", "inbound", "02", "2026-01-01T00:00:00.000Z"),
        flow("web", "inbound", "03", "2026-01-01T00:00:00.000Z"),
        silent,
    ];
    let diff = diff(&View::new(&web), &View::new(&batch), &flows);
    let told: Vec<(&str, Verdict)> = diff.changes.iter().map(|c| (&*c.source, c.after.verdict)).collect();
    assert_eq!(told, [("shop/web", Verdict::Deny), ("shop/batch", Verdict::Allow)]);
    assert_eq!(diff.unclear, 1);
}

/// A pair of the day: of the pods that it counted one is told, and that one may be gone.
fn pair(from: (&str, &str, &str), to: (&str, &str, &str), connections: u64) -> Flow {
    let end = |(pod, controller, identity): (&str, &str, &str)| FlowEnd {
        workload: Some(pod.to_owned()),
        controller: Some(controller.to_owned()),
        namespace: Some("shop".to_owned()),
        identity: Some(identity.to_owned()).filter(|text| !text.is_empty()),
        ..FlowEnd::default()
    };
    Flow { src: end(from), dst: end(to), connections, ..flow("", "inbound", "", "2026-01-01T00:00:00.000Z") }
}

/// Nobody has the address of the one any more, and somebody else that of the other.
#[test]
fn who_is_gone_is_stood_for_by_its_controller_or_its_identity_or_counts_as_unclear() {
    let (open, web) = (mesh(None), mesh(Some(&["web"])));
    let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let (batch, lost) = (id("batch"), id("lost"));
    let (batch, lost) = (batch.as_str(), lost.as_str());
    let here = ("cart", "cart", "");
    let cart = |address: &str, pair: Flow| Flow { hbone_addr: Some(address.to_owned()), ..pair };
    let rows = [
        // By its controller, by its identity under another name, and by neither.
        (pair(("batch-old", "batch", batch), here, 3), Some("10.0.0.3:80")),
        (pair(("gone-1", "gone", batch), here, 3), Some("10.0.0.3:80")),
        (pair(("gone-1", "gone", lost), here, 3), None),
        (pair(("gone-1", "gone", ""), here, 3), None),
        // A pod of that name has another identity by now, and nobody has the one it had.
        (pair(("batch", "batch", lost), here, 3), None),
        (
            cart("10.0.0.77:80", pair(("batch", "batch", batch), ("cart-old", "cart", ""), 3)),
            Some("10.0.0.3:80"),
        ),
        (
            cart("10.0.0.1:80", pair(("batch", "batch", batch), ("cart-old", "cart", ""), 3)),
            Some("10.0.0.3:80"),
        ),
        (cart("10.0.0.77:80", pair(("batch", "batch", batch), ("gone-1", "gone", ""), 3)), None),
    ];
    for (flow, want) in rows {
        let found = diff(&View::new(&open), &View::new(&web), std::slice::from_ref(&flow));
        let told = found.changes.first().map(|change| (change.destination.as_str(), change.connections));
        assert_eq!(told, want.map(|address| (address, 3)), "{flow:#?}");
        assert_eq!(
            (found.compared, found.unclear),
            if want.is_some() { (1, 0) } else { (0, 1) },
            "{flow:#?}"
        );
    }
}

#[test]
fn identities_and_hosts_are_rows_of_their_own() {
    let (open, other) = (mesh(None), mesh(Some(&["batch"])));
    let request = |id: &str, host: &str, identity: Option<&str>| {
        let mut flow = flow("web", "inbound", id, "2026-01-01T00:00:00.000Z");
        flow.src.identity = identity.map(str::to_owned);
        let (method, path) = ("GET".to_owned(), "/".to_owned());
        flow.http = Some(crate::FlowHttp { method, path, authority: host.to_owned(), status: 200 });
        flow
    };
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let flows = [
        request("1", "a", None),
        request("2", "b", None),
        request("3", "a", Some(web)),
        request("4", "a", None),
    ];
    let found = diff(&View::new(&open), &View::new(&other), &flows);
    assert_eq!(found.compared, 3);
    let mut told: Vec<_> = found
        .changes
        .iter()
        .map(|change| (change.authority.as_deref(), change.identity.as_deref(), change.connections))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(Some("a"), None, 2), (Some("a"), Some(web), 1), (Some("b"), None, 1)]);
}
