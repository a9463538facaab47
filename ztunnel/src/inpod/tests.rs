//! What the node agent's messages leave behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_net::linux::netns::NetNs;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Readiness;
use ambit_state::PodRef;
use ambit_xds::proto::istio::workload::zds::workload_request::Payload;
use ambit_xds::proto::istio::workload::zds::{DelWorkload, KeepWorkload, SnapshotSent, WorkloadRequest};
use clap::Parser as _;
use prost::Message as _;

use super::Workloads;
use super::protocol::handle;
use super::workloads::PodInfo;
use crate::config::Config;

/// A conversation that has begun, with one pod that could not be captured.
fn pending(readiness: &Readiness) -> Workloads {
    let config = Config::try_parse_from(["ztunnel"]).unwrap();
    let proxy = Arc::new(crate::app::proxy(&config, &Arc::default()));
    let mut workloads = Workloads::new(proxy, Drain::new(), readiness.part("pods"));
    let name = PodRef { namespace: "shop".into(), service_account: "web".into(), name: "web-1".into() };
    workloads.set_pending("uid-1", PodInfo { name }, NetNs::current().unwrap());
    workloads
}

#[tokio::test]
async fn a_pod_that_could_not_be_captured_and_is_gone_does_not_keep_the_node_unready() {
    // `del` before `snapshot_sent` takes the pod from the pending list as well.
    let del = || Payload::Del(DelWorkload { uid: "uid-1".into() });
    let keep = || Payload::Keep(KeepWorkload { uid: "uid-1".into() });
    let sent = || Payload::SnapshotSent(SnapshotSent {});
    for (name, said, ready) in [
        ("deleted before the snapshot is complete", vec![del(), sent()], true),
        ("deleted after it", vec![keep(), sent(), del()], true),
        ("not in the snapshot", vec![sent()], true),
        ("still there", vec![keep(), sent()], false),
    ] {
        let readiness = Readiness::new();
        let mut workloads = pending(&readiness);
        readiness.complete();
        let mut snapshot = Some(BTreeSet::from(["uid-1".to_owned()]));
        if name == "not in the snapshot" {
            snapshot = Some(BTreeSet::new());
        }
        for payload in said {
            let bytes = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
            handle(&bytes, Vec::new(), &mut workloads, &mut snapshot).unwrap();
        }
        assert_eq!(readiness.pending().is_empty(), ready, "{name}");
        assert_eq!(workloads.pending_count(), usize::from(!ready), "{name}");
    }
}
