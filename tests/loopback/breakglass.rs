//! A pass ends at the node by itself: nobody is there to say so, and what only it let in is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ambit_net::tunnel::client::TunnelError;
use ambit_policy::model::{Action, Policy, Rule, Scope};
use ambit_runtime::clock;
use ambit_state::Change;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use ambit_tests::node::{self, Node, fresh_ip};
use ambit_types::{PolicyKey, Reason};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::ends::{Client, quick, request, within};
use crate::node::until;

/// How long the passes of these tests are open.
const OPEN: Duration = Duration::from_secs(3);

fn policy(name: &str, rules: Vec<Rule>, until: Option<u64>) -> Change {
    let key = PolicyKey::new("bank", name);
    let (scope, action) = (Scope::Namespace, Action::Allow);
    Policy { key, scope, action, rules, dry_run: false, until }.into()
}

/// Lets everybody in until then.
fn pass(until: u64) -> Change {
    policy("ambit-breakglass", vec![Rule::default()], Some(until))
}

/// A time from now, in seconds since 1970.
fn after(time: Duration) -> u64 {
    (clock::wall() + time).duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

/// A pod that lets nobody in, and somebody who asks.
struct Stage {
    node: Node,
    client: Client,
    tunnel: SocketAddr,
    app: SocketAddr,
}

impl Stage {
    async fn up() -> Self {
        let ca = Arc::new(TestCa::new());
        let node = Node::start(ca.clone());
        let ip = fresh_ip();
        let workload = node::workload("bank", "web", ip, true);
        let pod = node.pod(&workload);
        node.learn([workload.into(), policy("nobody", Vec::new(), None)]);
        let tunnel = node.listen(&pod, ip).await;
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback");
        let app = listener.local_addr().expect("bound");
        fakes::start(async move {
            let mut held = Vec::new();
            while let Ok((tcp, _)) = listener.accept().await {
                held.push(tcp);
            }
        });
        Self { node, client: Client::new(&ca, quick()), tunnel, app }
    }

    /// Why a new connection is refused; none if it is let in.
    async fn refused(&self) -> Option<Reason> {
        let lease = within(self.client.lease(self.tunnel)).await.expect("a tunnel");
        let asked = within(lease.tunnel().connect(request(self.app), &quick())).await;
        asked.err().map(|error: TunnelError| error.reason())
    }

    fn recorded(&self, code: Reason) -> Vec<Value> {
        let all = self.node.records();
        all.into_iter().filter(|record| record["code"] == code.code()).collect()
    }
}

#[tokio::test]
async fn a_pass_ends_without_a_word_and_what_only_it_let_in_is_cut() {
    let stage = Stage::up().await;
    assert_eq!(stage.refused().await, Some(Reason::PolicyDenied));
    stage.node.learn([pass(after(OPEN))]);
    let lease = within(stage.client.lease(stage.tunnel)).await.expect("a tunnel");
    let held = within(lease.tunnel().connect(request(stage.app), &quick())).await.expect("the pass is open");
    let cut = || stage.recorded(Reason::PolicyChanged).len() == 1;
    until("the connection is cut", OPEN + Duration::from_secs(5), cut).await;
    assert_eq!(stage.refused().await, Some(Reason::PolicyDenied));
    let is_recorded = || stage.recorded(Reason::PolicyDenied).len() == 2;
    until("both refusals are recorded", Duration::from_secs(5), is_recorded).await;
    drop((held, lease));
}

/// As after a restart from a sealed state, or when the control plane sends everything anew.
#[tokio::test]
async fn a_pass_that_is_over_or_has_no_end_lets_nobody_in() {
    let stage = Stage::up().await;
    let endless = policy("ambit-breakglass", vec![Rule::default()], None);
    for change in [pass(after(Duration::ZERO) - 1), pass(0), endless] {
        stage.node.learn([change.clone()]);
        assert_eq!(stage.refused().await, Some(Reason::PolicyDenied), "{change:?}");
    }
}
