//! One waypoint `shop/wp` and its control plane, joined by messages that really are encoded and decoded.

use std::sync::Arc;
use std::time::Instant;

use ambit_policy::http::model::{Action, Policy, Rule};
use ambit_policy::http::provider::{self, Provider};
use ambit_route::model::{
    Backend, Destination, DestinationPolicy, Frontend, Group, HttpMatch, PathMatch, Route, RouteKey,
    Rule as HttpRule, Target,
};
use ambit_types::{PolicyKey, Service, ServiceKey};
use ambit_xds::Kind;
use ambit_xds::client::store::Change;
use ambit_xds::client::{Client, Limits, Store, Update};
use ambit_xds::codec::{Address, HttpPolicy, PolicyTarget, RequestAuthentication};
use ambit_xds::node::{Caller, NodeIdentity, WaypointKey};
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use ambit_xds::server::{self, Connection, Delta, Resources, WaypointDelta};
use prost::Message;

pub(super) struct Rig {
    pub(super) resources: Resources,
    pub(super) server: Connection,
    pub(super) client: Client,
    pub(super) store: Store,
    pub(super) changes: Vec<Change>,
    pub(super) now: Instant,
    revision: u64,
}

/// A response in short, with its size: kind, `+NAME`, `-NAME`.
pub(super) fn brief(response: &DeltaDiscoveryResponse) -> String {
    let kind = Kind::among(&Kind::WAYPOINT, &response.type_url).unwrap();
    let mut parts = vec![kind.to_string()];
    parts.extend(response.resources.iter().map(|resource| format!("+{}", resource.name)));
    parts.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    parts.join(" ")
}

pub(super) fn node() -> NodeIdentity {
    NodeIdentity {
        ip: "10.0.0.9".parse().unwrap(),
        pod_name: "wp-1".into(),
        namespace: "shop".into(),
        node_name: "n1".into(),
        metadata: Default::default(),
    }
}

pub(super) fn wp() -> WaypointKey {
    WaypointKey::new("shop", "wp")
}

impl Rig {
    /// Nothing published, no stream yet.
    pub(super) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        Self {
            resources: Resources::default(),
            server: Connection::for_waypoint("n1", wp(), Arc::default(), server::Limits::default()),
            client: Client::for_waypoint(node(), "wp", Limits::default()),
            store: Store::default(),
            changes: Vec::new(),
            now,
            revision: 0,
        }
    }

    /// Publishes and connects: what came.
    pub(super) fn with(delta: Delta, own: WaypointDelta) -> (Self, Vec<String>) {
        let mut rig = Self::new();
        rig.set(delta, own);
        let came = rig.connect();
        (rig, came)
    }

    fn set(&mut self, delta: Delta, own: WaypointDelta) {
        self.revision += 1;
        self.resources.apply(self.revision, delta);
        self.resources.apply_waypoint(self.revision, &wp(), own);
    }

    /// Changes what is published while no stream is up.
    pub(super) fn publish_offline(&mut self, delta: Delta, own: WaypointDelta) {
        self.client.on_disconnect();
        self.set(delta, own);
    }

    /// Opens a new stream to a server that knows nothing of earlier ones: what came.
    pub(super) fn connect(&mut self) -> Vec<String> {
        let requests = self.client.on_connect();
        let caller = Caller::decode(requests[0].node.as_ref()).unwrap();
        let latest = Arc::new(self.resources.clone());
        let limits = server::Limits::default();
        self.server =
            Connection::for_waypoint(caller.node_name.clone(), caller.waypoint().unwrap(), latest, limits);
        let mut came = Vec::new();
        for request in requests {
            let response = self.server.handle_request(request, self.now).unwrap();
            came.extend(self.settle(response));
        }
        came
    }

    /// Publishes and tells the stream: what came.
    pub(super) fn publish(&mut self, delta: Delta, own: WaypointDelta) -> Vec<String> {
        let responses = self.publish_raw(delta, own);
        responses.iter().map(brief).collect()
    }

    pub(super) fn publish_raw(&mut self, delta: Delta, own: WaypointDelta) -> Vec<DeltaDiscoveryResponse> {
        self.set(delta, own);
        self.changes.clear();
        let response = self.server.handle_change(Arc::new(self.resources.clone()), self.now);
        self.settle_raw(response)
    }

    fn settle(&mut self, response: Option<DeltaDiscoveryResponse>) -> Vec<String> {
        self.settle_raw(response).iter().map(brief).collect()
    }

    /// Applies and acknowledges whatever comes, until nothing does.
    pub(super) fn settle_raw(
        &mut self,
        mut response: Option<DeltaDiscoveryResponse>,
    ) -> Vec<DeltaDiscoveryResponse> {
        let mut all = Vec::new();
        while let Some(each) = response {
            let (_, request) = self.take(&each);
            response = self.server.handle_request(request, self.now).unwrap();
            all.push(each);
        }
        all
    }

    /// What the client makes of a response, over the wire; and its answer.
    pub(super) fn take(&mut self, response: &DeltaDiscoveryResponse) -> (Update, DeltaDiscoveryRequest) {
        let bytes = response.encode_to_vec();
        let (update, receipt) = self.client.handle_response(DeltaDiscoveryResponse::decode(&*bytes).unwrap());
        self.changes.extend(self.store.apply(&update));
        (update, receipt.applied(&mut self.client).request.unwrap())
    }
}

pub(super) fn service(name: &str) -> Address {
    Service::new("shop", name, format!("{name}.example")).into()
}

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.example"))
}

/// Routes of port 80 of a service: `paths` to the backend `to`, by weight.
pub(super) fn routes(name: &str, paths: &[&str], to: &str, weight: u32) -> Arc<Frontend> {
    let rule = |path: &&str| HttpRule {
        matches: vec![HttpMatch { path: Some(PathMatch::Prefix((*path).into())), ..HttpMatch::default() }],
        backends: vec![Backend {
            target: Target::Service { service: key(to), port: 80 },
            weight,
            filters: vec![],
        }],
        ..HttpRule::default()
    };
    let route = Route {
        key: RouteKey::new("shop", format!("{name}-route")),
        created: 1_700_000_000,
        rules: paths.iter().map(rule).collect(),
    };
    Arc::new(Frontend {
        service: key(name),
        port: 80,
        producer: Some(Group::Http(vec![route])),
        consumers: Default::default(),
    })
}

pub(super) fn destination(name: &str) -> Arc<Destination> {
    Arc::new(Destination { service: key(name), policy: DestinationPolicy::default() })
}

/// A policy; a DENY without rules is one that readers refuse.
pub(super) fn policy(
    name: &str,
    action: Action,
    rules: usize,
    targets: Vec<PolicyTarget>,
) -> Arc<HttpPolicy> {
    let key = PolicyKey::new("shop", name);
    let policy = Policy { key, action, rules: vec![Rule::default(); rules], dry_run: false };
    Arc::new(HttpPolicy { targets, policy: Arc::new(policy) })
}

pub(super) fn tokens(name: &str) -> Arc<RequestAuthentication> {
    let (key, targets) = (PolicyKey::new("shop", name), vec![PolicyTarget::Waypoint]);
    Arc::new(RequestAuthentication { key, targets, rules: vec![] })
}

/// A provider that is asked in gRPC at this port.
pub(super) fn provider(name: &str, port: u16) -> Arc<Provider> {
    Arc::new(Provider {
        name: name.into(),
        service: provider::Address { namespace: Some("iam".into()), hostname: "opa.iam.example".into() },
        port,
        timeout: provider::TIMEOUT_DEFAULT,
        fail_open: false,
        status_on_error: provider::STATUS_ON_ERROR_DEFAULT,
        check: provider::Check::Grpc,
    })
}

pub(super) fn addresses(names: &[&str]) -> Delta {
    Delta { addresses: names.iter().map(|name| service(name)).collect(), ..Delta::default() }
}

pub(super) fn frontends(frontends: Vec<Arc<Frontend>>) -> WaypointDelta {
    WaypointDelta { frontends, ..WaypointDelta::default() }
}

pub(super) fn policies(policies: Vec<Arc<HttpPolicy>>) -> WaypointDelta {
    WaypointDelta { policies, ..WaypointDelta::default() }
}

pub(super) fn removed(names: &[(Kind, &str)]) -> WaypointDelta {
    let removed = names.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect();
    WaypointDelta { removed, ..WaypointDelta::default() }
}

/// One of everything.
pub(super) fn all() -> (Delta, WaypointDelta) {
    let own = WaypointDelta {
        frontends: vec![routes("cart", &["/"], "cart-v2", 1)],
        destinations: vec![destination("cart-v2")],
        policies: vec![policy("get-only", Action::Allow, 1, vec![PolicyTarget::Waypoint])],
        authentications: vec![tokens("jwt")],
        providers: vec![provider("opa", 9191)],
        removed: vec![],
    };
    (addresses(&["cart", "cart-v2"]), own)
}
