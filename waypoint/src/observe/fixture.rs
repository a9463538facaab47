//! Records for the tests of what becomes of them.

use std::time::{Duration, UNIX_EPOCH};

use ambit_hbone::ConnId;
use ambit_types::{Identity, ServiceKey, Workload};

use super::Record;

/// What a record borrows.
pub(super) struct Cast {
    pub(super) cart: Workload,
    pub(super) web: Workload,
    pub(super) identity: Identity,
    pub(super) service: ServiceKey,
}

/// A pod of the controller before the dash.
pub(super) fn pod(name: &str) -> Workload {
    let mut pod = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    let of = name.split('-').next().unwrap_or_default();
    (pod.workload_name, pod.canonical_name, pod.service_account) = (of.into(), of.into(), of.into());
    pod.canonical_revision = "v1".into();
    pod
}

impl Cast {
    pub(super) fn new() -> Self {
        Self {
            cart: pod("cart-1"),
            web: pod("web-1"),
            identity: Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
            service: ServiceKey::new("shop", "web.shop.svc.cluster.local"),
        }
    }

    /// A request that went well, at 1000 s, in 12 ms.
    pub(super) fn request(&self) -> Record<'_> {
        Record {
            method: Some("GET"),
            path: "/a",
            authority: "web.shop",
            protocol: "http",
            version: Some("HTTP/1.1"),
            code: 200,
            grpc_status: None,
            flag: "-",
            detail: "via_upstream",
            reason: None,
            policy: None,
            decided_by: None,
            rule: None,
            audit: &[],
            dry_run: &[],
            route: Some("shop/web rule 0"),
            source: Some(&self.cart),
            source_identity: &self.identity,
            source_address: ([10, 0, 0, 1], 4000).into(),
            target: ([10, 9, 0, 1], 80).into(),
            service: Some(&self.service),
            backend: Some(&self.service),
            destination: Some(&self.web),
            destination_address: Some(([10, 0, 0, 2], 8080).into()),
            is_encrypted: true,
            attempts: 1,
            stopped: None,
            bytes_received: 3,
            bytes_sent: 700,
            messages: None,
            started: UNIX_EPOCH + Duration::from_secs(1000),
            duration: Duration::from_millis(12),
            until_answer: Some(Duration::from_millis(10)),
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            span: None,
            conn_id: ConnId::from_random(7),
            error: None,
        }
    }

    /// A connection that was passed through.
    pub(super) fn connection(&self) -> Record<'_> {
        Record { method: None, protocol: "tcp", version: None, code: 0, route: None, ..self.request() }
    }
}
