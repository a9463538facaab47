//! Golden vectors: every message that travels between nodes, control plane, agent and CA is compared with bytes
//! derived by hand from the field numbers of the contract, written by the little encoder below or as hex.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod golden {
    pub(crate) mod authorization;
    pub(crate) mod bytes;
    pub(crate) mod discovery;
    pub(crate) mod tolerance;
    pub(crate) mod waypoint;
    pub(crate) mod workload;
    pub(crate) mod zds_and_ca;
}
