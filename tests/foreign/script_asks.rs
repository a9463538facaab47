//! `tests/peers/tunnel_client.py` asks our port 15008: each scenario is a row, and the tunnel must outlive it.

use std::sync::Arc;

use ambit_tests::node::{self, Node, Signer, fresh_ip};
use ambit_tests::peers;

use crate::apps::{App, Seen, identity, until};

/// What the scenario must have left at the applications.
type Left = fn(&[Seen]) -> bool;

fn anything(_: &[Seen]) -> bool {
    true
}

/// Runs a scenario against a fresh pod.
async fn check(scenario: &str, echo_saw: Left, source_saw: Left) {
    if !peers::are_here() {
        return;
    }
    let signer = Arc::new(Signer::new());
    let folder = signer.files("client", &identity("shop", "cart")).display().to_string();
    let node = Node::start(signer.clone());
    let ip = fresh_ip();
    let workload = node::workload("bank", "web", ip, true);
    let pod = node.pod(&workload);
    node.learn([workload.into()]);
    let tunnel = node.listen(&pod, ip).await;
    let (echo, source) = (App::echo(ip).await, App::source(ip, 100_000).await);
    let nobody = App::nobody(ip).await;
    let addresses = [echo.address, source.address, nobody].map(|a| a.to_string());
    let mut arguments = vec![scenario.to_owned(), tunnel.to_string(), folder, "client".to_owned()];
    arguments.extend(addresses);
    let output = peers::finish(peers::script("tunnel_client.py", &arguments)).await;
    assert_eq!(output.code, Some(0), "{scenario}: {}{}", output.stdout, output.stderr);
    until(&format!("{scenario}: the echo application sees what it must"), || echo_saw(&echo.seen())).await;
    until(&format!("{scenario}: the source sees what it must"), || source_saw(&source.seen())).await;
    until(&format!("{scenario}: nothing stays open"), || node.open() == 0).await;
}

macro_rules! rows {
    ($($scenario:ident: $echo:expr, $source:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                check(stringify!($scenario), $echo, $source).await;
            }
        )*
    };
}

rows! {
    plain: |seen| seen.contains(&Seen::Ended(5)), anything;
    application_ends_first: anything, |seen| seen == [Seen::Ended(300_000)];
    reset_of_a_stream: |seen| seen.contains(&Seen::Reset(7)), anything;
    link_breaks: |seen| seen == [Seen::Reset(7)], anything;
    goaway_in_midstream: |seen| seen == [Seen::Ended(106)], anything;
    request_ends_at_once: anything, |seen| seen == [Seen::Ended(0)];
    data_before_the_answer: |seen| seen == [Seen::Ended(200_000)], anything;
    trailers: |seen| seen.contains(&Seen::Ended(15)), anything;
    extra_pseudo_headers: |seen| seen == [Seen::Ended(5); 2], anything;
    requests_that_are_no_tunnel: |seen| seen == [Seen::Ended(5)], anything;
    large_headers: |seen| seen.len() == 2, anything;
    strange_values: |seen| seen == [Seen::Ended(1); 8], anything;
    window_of_a_byte: anything, anything;
    window_shut_and_opened: anything, anything;
    settings_change: anything, anything;
    ping_flood: anything, anything;
    frames_that_mean_nothing: anything, anything;
    many_streams: anything, anything;
    request_in_pieces: |seen| seen.len() == 2, anything;
    window_overflow: anything, anything;
}
