//! Every step from an original destination to a plan.

use crate::testing::{Caller, told, world};

mod bound;
mod claims;
mod gateways;
mod guards;
mod services;
mod workloads;

/// A client and a few neighbours, on which rows build.
const MESH: &str = "
    pod shop/client 10.244.1.5,fd00:10:244:1::5 sa=client nodeips=10.244.1.1
    pod shop/far 10.244.2.7,fd00:10:244:2::7 node=n2 sa=far
    pod shop/near 10.244.1.8 sa=near
    pod shop/plain 10.244.2.9 node=n2 plain
    pod shop/old 10.244.2.10 node=n2 legacy
    pod shop/hostnet 10.89.0.12 node=n2 host
";

const NO_ENDPOINT: &str = "AMB3002 no-healthy-endpoint";
const UNBOUND: &str = "AMB3101 waypoint-unbound";

#[track_caller]
fn check(more: &str, rows: &[(&str, &str)]) {
    check_as(&Caller::new("shop/client"), more, rows);
}

#[track_caller]
fn check_as(caller: &Caller<'_>, more: &str, rows: &[(&str, &str)]) {
    let snapshot = world(&format!("{MESH}\n{more}")).snapshot();
    for (destination, want) in rows {
        assert_eq!(told(&caller.plan(&snapshot, destination)), *want, "to {destination} with {more}");
    }
}

fn texts(identities: &[ambit_types::Identity]) -> Vec<String> {
    identities.iter().map(ToString::to_string).collect()
}
