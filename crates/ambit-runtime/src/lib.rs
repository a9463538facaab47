//! What every program needs to run: clock, tasks, drain, readiness, logs, metrics, the admin socket.
//!
//! Nothing here knows what a workload or a policy is.

pub mod access_log;
pub mod admin;
pub mod clock;
pub mod conntrack;
pub mod drain;
pub mod flows;
pub mod leaves;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod tasks;
pub mod workers;
