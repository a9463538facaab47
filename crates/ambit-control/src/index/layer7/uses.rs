//! Services that the routes of a port send to.

use std::collections::BTreeSet;

use ambit_route::model::{Backend, Filter, Frontend, Group, Rule, Target};
use ambit_types::ServiceKey;

/// Adds every service that a frontend's routes lead to, mirrors included.
pub(super) fn of_frontend(frontend: &Frontend, to: &mut BTreeSet<ServiceKey>) {
    for group in frontend.producer.iter().chain(frontend.consumers.values()) {
        match group {
            Group::Http(routes) | Group::Listed(routes) | Group::Unrouted(routes) => {
                routes.iter().for_each(|route| of_rules(&route.rules, to));
            }
            Group::Grpc(routes) => routes.iter().for_each(|route| of_rules(&route.rules, to)),
            Group::Tls(routes) | Group::Tcp(routes) => {
                routes.iter().for_each(|route| of_backends(&route.backends, to));
            }
        }
    }
}

fn of_rules<M>(rules: &[Rule<M>], to: &mut BTreeSet<ServiceKey>) {
    for rule in rules {
        of_filters(&rule.filters, to);
        of_backends(&rule.backends, to);
    }
}

fn of_backends(backends: &[Backend], to: &mut BTreeSet<ServiceKey>) {
    for backend in backends {
        of_target(&backend.target, to);
        of_filters(&backend.filters, to);
    }
}

fn of_filters(filters: &[Filter], to: &mut BTreeSet<ServiceKey>) {
    for filter in filters {
        if let Filter::Mirror(mirror) = filter {
            of_target(&mirror.target, to);
        }
    }
}

fn of_target(target: &Target, to: &mut BTreeSet<ServiceKey>) {
    match target {
        Target::Service { service, .. } => _ = to.insert(service.clone()),
        Target::Invalid { .. } => {}
    }
}
