//! Control planes announce a policy's name with the workload before they send the policy itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ambit_net::tunnel::client::TunnelError;
use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_runtime::clock;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use ambit_tests::node::{self, Node, fresh_ip};
use ambit_types::{PolicyKey, Reason, Workload};
use tokio::net::TcpListener;

use crate::ends::{Client, quick, request, within};

/// A pod whose record names `bank/p`, which nobody has sent.
struct Stage {
    node: Node,
    client: Arc<Client>,
    tunnel: SocketAddr,
    app: SocketAddr,
}

impl Stage {
    async fn up() -> Self {
        let ca = Arc::new(TestCa::new());
        let node = Node::start(ca.clone());
        let ip = fresh_ip();
        let workload = named(ip);
        let pod = node.pod(&workload);
        node.learn([workload.into()]);
        let tunnel = node.listen(&pod, ip).await;
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback");
        let app = listener.local_addr().expect("bound");
        fakes::start(async move {
            let mut held = Vec::new();
            while let Ok((tcp, _)) = listener.accept().await {
                held.push(tcp);
            }
        });
        Self { node, client: Arc::new(Client::new(&ca, quick())), tunnel, app }
    }

    /// Asks for the application, beside the test.
    fn ask(&self) -> tokio::task::JoinHandle<Result<(), TunnelError>> {
        let (client, tunnel, app) = (self.client.clone(), self.tunnel, self.app);
        fakes::start(async move {
            let lease = client.lease(tunnel).await?;
            lease.tunnel().connect(request(app), &quick()).await.map(|_| ())
        })
    }
}

fn named(ip: IpAddr) -> Workload {
    let mut workload = node::workload("bank", "web", ip, true);
    workload.policies = vec![PolicyKey::new("bank", "p")];
    workload
}

fn policy(action: Action) -> Policy {
    Policy {
        key: PolicyKey::new("bank", "p"),
        scope: Scope::WorkloadSelector,
        action,
        rules: vec![Rule::default()],
        dry_run: false,
        until: None,
    }
}

#[tokio::test]
async fn a_new_connection_waits_for_a_policy_that_was_announced() {
    for (action, want) in [(Action::Allow, None), (Action::Deny, Some(Reason::DenyRuleMatched))] {
        let stage = Stage::up().await;
        let mut asked = stage.ask();
        let early = tokio::time::timeout(Duration::from_millis(300), &mut asked).await;
        assert!(early.is_err(), "decided without the policy: {early:?}");
        stage.node.learn([policy(action).into()]);
        let got = within(asked).await.expect("no panic");
        assert_eq!(got.err().map(|e| e.reason()), want, "{action:?}");
    }
}

/// G2: what never arrives never allows.
#[tokio::test]
async fn a_policy_that_never_arrives_refuses_in_bounded_time() {
    let stage = Stage::up().await;
    let begun = clock::monotonic();
    let error = within(stage.ask()).await.expect("no panic").expect_err("nothing permits it");
    assert_eq!(error.reason(), Reason::PolicyUnresolved);
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
