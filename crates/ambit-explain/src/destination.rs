//! The destination's side: whether its proxy takes the connection, and its policies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_policy::Facts;
use ambit_state::{
    Authority, HboneFacts, PlainFacts, PlainPlan, explain, plan_inbound_hbone, plan_inbound_plain,
    speaks_for_others_at,
};
use ambit_types::{Reason, Workload};

use crate::explanation::{Outcome, Step, Way};
use crate::mesh::name_of;
use crate::walk::{Ground, Peer, Walk};

impl Walk<'_> {
    /// A tunnel's stream that asks `own` for one of its addresses.
    pub(crate) fn arrive(
        &mut self,
        own: &Arc<Workload>,
        address: SocketAddr,
        peer: &Peer,
        service: Option<&str>,
    ) {
        self.end_at(own);
        let snapshot = self.view.snapshot;
        let facts = HboneFacts {
            own: Some(own),
            authority: Authority::Address(address),
            local: SocketAddr::new(address.ip(), ambit_state::plan::HBONE_PORT),
            peer: SocketAddr::new(peer.address, 0),
            forwarded_host: service,
        };
        let target = match plan_inbound_hbone(snapshot, &facts) {
            Ok(target) => target,
            Err(refused) => {
                let refusal = refused.refusal;
                return self.refuse(Step::Admission, refusal.reason, refusal.detail, Ground::default());
            }
        };
        let what = format!("{} takes it for {}", name_of(own), target.address);
        self.note(Step::Admission, Outcome::Passed, what, Vec::new());
        let (ip, port) = (target.address.ip(), target.address.port());
        let speaks = || speaks_for_others_at(snapshot, own, &peer.identity, port) == Some(true);
        let client = peer.client.as_ref().filter(|_| speaks());
        let facts = Facts::new(Some(&peer.identity), peer.address, ip, port).on_behalf_of(client);
        let evaluated = explain(snapshot, own, &facts);
        self.decided(&evaluated);
    }

    /// Plaintext that was dialled to an address of `own`.
    pub(crate) fn arrive_plain(&mut self, own: &Arc<Workload>, address: SocketAddr, source: IpAddr) {
        let snapshot = self.view.snapshot;
        let facts = PlainFacts {
            own: Some(own),
            source: SocketAddr::new(source, 0),
            destination: address,
            from_node: false,
            meshed_plaintext: self.view.settings.meshed_plaintext,
        };
        match plan_inbound_plain(snapshot, &facts) {
            PlainPlan::Refuse(refusal) => {
                self.refuse(Step::Admission, refusal.reason, refusal.detail, Ground::default());
            }
            PlainPlan::Probe => {
                self.way = Some(Way::Probe);
                let what = format!("{address} is a port that probes declare, and the caller is its node");
                self.pass(Step::Admission, Some(Reason::ProbeAdmitted), what, Ground::default());
            }
            PlainPlan::Authorize { meshed, .. } => {
                let mut details = Vec::new();
                if meshed {
                    details.push(
                        "the address is that of a workload of the mesh, which proves nothing".to_owned(),
                    );
                }
                self.note(
                    Step::Admission,
                    Outcome::Passed,
                    "plaintext: policy is asked without an identity",
                    details,
                );
                let facts = Facts::new(None, source, address.ip(), address.port());
                let evaluated = explain(snapshot, own, &facts);
                self.decided(&evaluated);
            }
        }
    }
}
