//! A waypoint on loopback with proxies and applications around it: the product's code in the middle, real TLS,
//! HTTP/2 and HTTP/1.1 on both sides.
//!
//! A pod is an address of 127.0.0.0/8. What a client's proxy does is done by [`Rig::connect`], what an endpoint's
//! proxy does by [`proxy`].

pub(crate) mod app;
pub(crate) mod ca;
pub(crate) mod client;
pub(crate) mod proxy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_net::tls::store::CertificateStore;
use ambit_net::tunnel::client::Tunnel;
use ambit_policy::http::{CustomOrder, PolicySet, compile, written};
use ambit_policy::jwt::RuleSet;
use ambit_route::Table;
use ambit_route::model::{Destination as Treated, Frontend, Group, HttpRoute, RouteConfig, RouteKey, Rule};
use ambit_runtime::drain::Drain;
use ambit_state::World;
use ambit_types::service::Port;
use ambit_types::{
    AppProtocol, Destination, GatewayAddress, Identity, NetworkAddress, PolicyKey, Reason, Service,
    ServiceKey, TunnelProtocol, Workload,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use waypoint::observe::{Record, Sink};
use waypoint::{Applied, Hooks, Limits, Observe, Own, Policies, State, Waypoint};

use ca::TestCa;

/// Longest time anything in these tests may take.
const BOUND: Duration = Duration::from_secs(20);

/// Port of the services.
pub(crate) const PORT: u16 = 80;
/// Port of the applications.
pub(crate) const APP_PORT: u16 = 8080;

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it hangs")
}

/// Runs a peer beside the test.
#[expect(clippy::disallowed_methods, reason = "a test's own peers")]
pub(crate) fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// An address that no other test of this program has, and hardly one of another program.
pub(crate) fn fresh_ip() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let (block, n) =
        (u8::try_from(n / 250).expect("few blocks"), u8::try_from(n % 250 + 1).expect("below 251"));
    assert!(block < 8, "too many pods for one test program");
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, (high | 1).wrapping_add(2 * block), low, n))
}

pub(crate) fn identity(namespace: &str, account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")).expect("an identity")
}

pub(crate) fn workload(namespace: &str, name: &str, ip: IpAddr) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/{namespace}/{name}"), namespace, name);
    workload.service_account = name.into();
    workload.workload_name = name.into();
    workload.canonical_name = name.into();
    workload.addresses = vec![ip];
    workload.tunnel = TunnelProtocol::Hbone;
    workload
}

pub(crate) fn service_key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.shop.svc.cluster.local"))
}

/// What the waypoint wrote of a request.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) code: u16,
    pub(crate) flag: &'static str,
    pub(crate) reason: Option<Reason>,
    pub(crate) policy: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) bytes: (u64, u64),
    pub(crate) route: Option<String>,
    pub(crate) dry_run: Vec<String>,
    pub(crate) source: Identity,
}

/// Keeps records.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<Vec<Written>>);

impl Sink for Records {
    fn take(&self, record: &Record<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Written {
            code: record.code,
            flag: record.flag,
            reason: record.reason,
            policy: record.policy.map(ToString::to_string),
            attempts: record.attempts,
            bytes: (record.bytes_received, record.bytes_sent),
            route: record.route.map(str::to_owned),
            dry_run: record.dry_run.to_vec(),
            source: record.source_identity.clone(),
        });
    }
}

/// What a test wants of the mesh.
pub(crate) struct Setup {
    pub(crate) services: Vec<Service>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) routes: RouteConfig,
    pub(crate) policies: Vec<(&'static str, bool)>,
    /// Of one service each.
    pub(crate) own_policies: Vec<(&'static str, &'static str)>,
    pub(crate) tokens: RuleSet,
    pub(crate) hooks: Hooks,
    pub(crate) limits: Limits,
    pub(crate) observing: Option<waypoint::observe::Setup>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let limits = Limits { detect_wait: Duration::from_millis(100), ..Limits::default() };
        let (services, workloads, policies) = (Vec::new(), Vec::new(), Vec::new());
        let (routes, tokens, hooks) = (RouteConfig::default(), RuleSet::default(), Hooks::default());
        let (own_policies, observing) = (Vec::new(), None);
        Self { services, workloads, routes, policies, own_policies, tokens, hooks, limits, observing }
    }

    /// A service of namespace shop with its endpoints, bound to the waypoint.
    pub(crate) fn service(mut self, name: &str, protocol: AppProtocol, endpoints: &[IpAddr]) -> Self {
        let key = service_key(name);
        let mut service = Service::new("shop", name, key.hostname.clone());
        service.ports = vec![Port { service_port: PORT, target_port: APP_PORT, app_protocol: protocol }];
        let number = u8::try_from(self.services.len() + 1).expect("few");
        service.vips = vec![NetworkAddress::new("".into(), [10, 9, 0, number].into())];
        let waypoint = ServiceKey::new("shop", "waypoint.shop.svc.cluster.local");
        service.waypoint =
            Some(GatewayAddress { destination: Destination::Hostname(waypoint), hbone_mtls_port: 15008 });
        self.services.push(service);
        for (n, ip) in endpoints.iter().enumerate() {
            let mut endpoint = workload("shop", &format!("{name}-{n}"), *ip);
            endpoint.services.insert(key.clone(), Vec::new());
            self.workloads.push(endpoint);
        }
        self
    }

    /// Rules of one HTTPRoute on a service.
    pub(crate) fn http(mut self, name: &str, rules: Vec<Rule<ambit_route::model::HttpMatch>>) -> Self {
        let route = HttpRoute { key: RouteKey::new("shop", "route"), created: 0, rules };
        self.routes.frontends.push(Frontend {
            service: service_key(name),
            port: PORT,
            producer: Some(Group::Http(vec![route])),
            consumers: Default::default(),
        });
        self
    }

    pub(crate) fn treated(mut self, treated: Treated) -> Self {
        self.routes.destinations.push(treated);
        self
    }

    /// A policy for all services, as in a manifest.
    pub(crate) fn policy(mut self, yaml: &'static str) -> Self {
        self.policies.push((yaml, false));
        self
    }

    /// A policy for one service.
    pub(crate) fn policy_of(mut self, service: &'static str, yaml: &'static str) -> Self {
        self.own_policies.push((service, yaml));
        self
    }

    pub(crate) fn dry_run(mut self, yaml: &'static str) -> Self {
        self.policies.push((yaml, true));
        self
    }

    /// What becomes of records besides being kept.
    pub(crate) fn observing(mut self, observing: waypoint::observe::Setup) -> Self {
        self.observing = Some(observing);
        self
    }

    pub(crate) async fn start(self) -> Rig {
        Rig::start(self).await
    }
}

/// A running waypoint.
pub(crate) struct Rig {
    pub(crate) ca: Arc<TestCa>,
    pub(crate) waypoint: Arc<Waypoint>,
    pub(crate) address: SocketAddr,
    pub(crate) records: Arc<Records>,
    own: Workload,
    setup: Setup,
    tunnel: tokio::sync::OnceCell<Tunnel>,
}

impl Rig {
    async fn start(mut setup: Setup) -> Self {
        let ca = TestCa::shared();
        let ip = fresh_ip();
        let own = workload("shop", "waypoint", ip);
        let records = Arc::new(Records::default());
        let waypoint = Waypoint::new(
            state(&setup, &own),
            CertificateStore::new(ca.clone(), Arc::new(|| 1000)),
            setup.hooks.clone(),
            setup.limits.clone(),
            Observe::with(records.clone(), setup.observing.take().unwrap_or_default()),
            Drain::new(),
        );
        let address = SocketAddr::new(ip, 15008);
        let listener = TcpListener::bind(address).await.expect("loopback");
        start(waypoint::terminate::listen(waypoint.clone(), listener));
        Self { ca, waypoint, address, records, own, setup, tunnel: tokio::sync::OnceCell::new() }
    }

    /// Changes the mesh.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.setup);
        self.waypoint.publish(state(&self.setup, &self.own));
    }

    /// Records so far.
    pub(crate) fn written(&self) -> Vec<Written> {
        self.records.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many records.
    pub(crate) async fn until_written(&self, n: usize) -> Vec<Written> {
        within(async {
            while self.written().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.written()
    }
}

fn state(setup: &Setup, own: &Workload) -> State {
    let workloads = setup.workloads.iter().cloned().map(ambit_state::Change::from);
    let services = setup.services.iter().cloned().map(ambit_state::Change::from);
    let applied = World::new("here").apply(workloads.chain(services));
    let (table, errors) = Table::compile(&setup.routes);
    assert!(errors.is_empty(), "{errors:?}");
    let policy = |name: String, yaml: &str, dry_run: bool| {
        let spec: written::Policy = serde_saphyr::from_str(yaml).expect("a policy");
        let key = PolicyKey::new("shop", name);
        Arc::new(compile(&key, &spec, dry_run, &Default::default()).expect("a sound policy"))
    };
    let numbered = setup.policies.iter().enumerate();
    let compiled: Vec<_> =
        numbered.map(|(n, (yaml, dry_run))| policy(format!("policy-{n}"), yaml, *dry_run)).collect();
    let applied_with = |own: &[(&str, &str)]| {
        let own =
            own.iter().enumerate().map(|(n, (service, yaml))| policy(format!("{service}-{n}"), yaml, false));
        let set = PolicySet::new(compiled.iter().cloned().chain(own), None, CustomOrder::default());
        Arc::new(Applied { policies: set, tokens: setup.tokens.clone(), ..Applied::default() })
    };
    let of_services = setup.services.iter().filter_map(|service| {
        let own = setup.own_policies.iter().filter(|(name, _)| *name == &*service.name);
        let own: Vec<(&str, &str)> = own.copied().collect();
        (!own.is_empty()).then(|| (service.key(), applied_with(&own)))
    });
    let policies = Policies { services: of_services.collect(), all: applied_with(&[]) };
    State {
        mesh: applied.snapshot,
        routes: Arc::new(table),
        policies,
        own: Own {
            workload: Arc::new(own.clone()),
            service: Some(ServiceKey::new("shop", "waypoint.shop.svc.cluster.local")),
            vips: vec![[10, 9, 9, 9].into()],
        },
    }
}
