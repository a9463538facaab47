//! On whose behalf a waypoint calls, told on the request of its tunnel: believed from the pod's own waypoint, from nobody
//! else, and asked of policy as long as the connection lives.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_hbone::context::CLIENT;
use ambit_net::tunnel::client::{Opened, Tunnel, TunnelError};
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount};
use ambit_state::{Change, World};
use ambit_tests::fakes;
use ambit_types::{Destination, GatewayAddress, Identity, PolicyKey, Reason, TrustDomain, Workload};
use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};

use crate::ends::{quick, request, within};
use crate::inbound::Front;
use crate::node::{Addresses, NODE, service, until, workload};

/// A port that is reached through the waypoint `bank/gate`, and one that is not.
const BOUND: u16 = 7000;
const FREE: u16 = 7001;

fn identity(text: &str) -> Identity {
    let (namespace, account) = text.split_once('/').expect("NAMESPACE/ACCOUNT");
    Identity::new(TrustDomain::default(), namespace, account)
}

/// `bank/web` behind a service with a waypoint; `jobs/cron` is denied in its namespace.
fn world(web: Workload, addresses: &Addresses) -> Vec<Change> {
    let mut backends = [web];
    let mut bound = service("bank/web", addresses.ip(100), BOUND, &mut backends);
    let mut gates = [workload("bank/gate", "n2", addresses.ip(9))];
    let gate = service("bank/gate", addresses.ip(101), 15008, &mut gates);
    let destination = Destination::Hostname(gate.key());
    bound.waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 });
    let workloads = backends.into_iter().chain(gates).map(Change::from);
    workloads.chain([bound, gate].map(Change::from)).chain([deny("jobs/cron").into()]).collect()
}

/// Denies one account in `bank`, in a policy named like it.
fn deny(account: &str) -> Policy {
    let (namespace, name) = account.split_once('/').expect("NAMESPACE/ACCOUNT");
    let mut one = Match::default();
    one.service_accounts.any.push(ServiceAccount { namespace: namespace.into(), name: name.into() });
    Policy {
        key: PolicyKey::new("bank", name),
        scope: Scope::Namespace,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![one] }], unevaluable: Vec::new() }],
        dry_run: false,
        until: None,
    }
}

/// An application that takes everybody and says nothing.
async fn application(at: SocketAddr) {
    let listener = TcpListener::bind(at).await.expect("loopback");
    fakes::start(async move {
        let mut taken: Vec<TcpStream> = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            taken.push(tcp);
        }
    });
}

/// Asks the pod for a port as `who`, with these lines that name a client.
async fn ask(front: &Front, who: &str, port: u16, clients: &[&str]) -> Result<(Tunnel, Opened), TunnelError> {
    let tunnel = within(front.tunnel_of(&identity(who), front.addresses.ip(10))).await?;
    let mut asked = request(front.addresses.at(2, port));
    for client in clients {
        let uri = if client.contains('/') { identity(client).to_string() } else { (*client).to_owned() };
        asked.headers_mut().append(&CLIENT, HeaderValue::from_str(&uri).expect("a header"));
    }
    let opened = within(tunnel.connect(asked, &quick())).await?;
    Ok((tunnel, opened))
}

async fn started() -> Front {
    let front = Front::start_in(world, |_| {}).await;
    application(front.addresses.at(2, BOUND)).await;
    application(front.addresses.at(2, FREE)).await;
    front
}

#[tokio::test]
async fn the_pods_own_waypoint_is_believed_and_nobody_else() {
    let front = started().await;
    let denied = Some(Reason::DenyRuleMatched);
    let rows: [(&str, u16, &[&str], Option<Reason>); 11] = [
        ("bank/gate", BOUND, &[], None),
        ("bank/gate", BOUND, &["shop/cart"], None),
        ("bank/gate", BOUND, &["jobs/cron"], denied),
        // What cannot be read may be anybody.
        ("bank/gate", BOUND, &["cart"], Some(Reason::ForwardedIdentityRefused)),
        ("bank/gate", BOUND, &["shop/cart", "jobs/cron"], Some(Reason::ForwardedIdentityRefused)),
        // Without a waypoint on the way it speaks for itself.
        ("bank/gate", FREE, &["jobs/cron"], None),
        ("shop/cart", BOUND, &["bank/gate"], Some(Reason::WaypointBypassed)),
        ("shop/cart", FREE, &["jobs/cron"], None),
        ("shop/cart", FREE, &["cart", "cart"], None),
        ("jobs/cron", FREE, &["shop/cart"], denied),
        ("data/gate", BOUND, &["shop/cart"], Some(Reason::WaypointBypassed)),
    ];
    for (who, port, clients, want) in rows {
        let got = match ask(&front, who, port, clients).await {
            Ok(_) => None,
            Err(TunnelError::Refused { reason, .. }) => Some(reason),
            Err(other) => panic!("{who} at {port} for {clients:?}: {other}"),
        };
        assert_eq!(got, want, "{who} at {port} for {clients:?}");
    }
}

#[tokio::test]
async fn the_record_names_the_waypoint_and_whom_it_called_for() {
    let front = started().await;
    ask(&front, "bank/gate", BOUND, &["jobs/cron"]).await.map(|_| ()).expect_err("it is denied");
    let record = front.node.record("AMB2103").await;
    assert_eq!(record["src"]["identity"], identity("bank/gate").to_string(), "{record:#}");
    assert_eq!(record["client"], identity("jobs/cron").to_string(), "{record:#}");
    assert_eq!(record["policy"], "bank/cron", "{record:#}");
    ask(&front, "jobs/cron", FREE, &["shop/cart"]).await.map(|_| ()).expect_err("it is denied");
    until("the second record is there", Duration::from_secs(5), || front.node.records().len() == 2).await;
    let forged = front.node.records().pop().expect("two records");
    assert_eq!(forged["src"]["identity"], identity("jobs/cron").to_string(), "{forged:#}");
    assert!(forged["client"].is_null(), "{forged:#}");
}

#[tokio::test]
async fn a_new_denial_of_the_client_cuts_what_the_waypoint_carries_for_it() {
    let front = started().await;
    let connections = &front.node.proxy.connections;
    connections.watch(front.node.proxy.mesh.clone());
    let cut = ask(&front, "bank/gate", BOUND, &["shop/cart"]).await.expect("it is let in");
    let kept = ask(&front, "bank/gate", BOUND, &["shop/other"]).await.expect("it is let in");
    assert_eq!(connections.flows().len(), 2);
    let mut world = World::new(NODE);
    let _ = world.apply(self::world(workload("bank/web", NODE, front.addresses.ip(2)), &front.addresses));
    front.node.proxy.mesh.publish(world.apply([deny("shop/cart").into()]));
    let record = front.node.record("AMB2107").await;
    assert_eq!(record["client"], identity("shop/cart").to_string(), "{record:#}");
    assert_eq!(connections.flows().len(), 1, "the other one goes on");
    drop((cut, kept));
}
