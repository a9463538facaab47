//! The rules of services for who calls a workload behind them by its own address.
//!
//! Nothing is routed there, but the limits on the services' requests must hold: an address is not to be a way around
//! them.

use ambit_route::{Rule, Selected};

use super::head::Fields;
use crate::State;
use crate::terminate::Target;

/// The rules that would have taken the request had it come by one of the services that lead to the workload, each
/// once, as far as they limit anything. Those of the services' own namespaces: which routes a client has elsewhere
/// does not matter to the workload. None if a service was called.
pub(super) fn limiting<'s>(
    state: &'s State,
    called: &Target,
    request: &ambit_route::Request<'_, Fields>,
) -> Vec<&'s Rule> {
    let Target::Workload { workload, address } = called else { return Vec::new() };
    let now = state.mesh.workload(&workload.uid).unwrap_or(workload);
    let mut rules: Vec<&Rule> = Vec::new();
    for (entry, port) in state.mesh.bound_services(now, address.port()) {
        let asked = ambit_route::Request { port: port.service_port, ..*request };
        match state.routes.select(&entry.service().key(), None, &asked) {
            Selected::Rule(rule, _) => {
                let is_new = rules.iter().all(|known| known.id != rule.id);
                if is_new && !rule.rate_limits.is_empty() {
                    rules.push(rule);
                }
            }
            Selected::Service | Selected::NoMatch(_) => {}
        }
    }
    rules
}
