//! A waypoint's client and store against the real server: order, size, removal, refusal, resumption, isolation.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod waypoint {
    mod change;
    mod isolation;
    mod model;
    mod refusal;
    mod resumption;
    mod rig;
}
