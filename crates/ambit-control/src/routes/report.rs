//! How a route stands with each of its services: accepted, references resolved, valid in part.
//!
//! Reasons are those of the Gateway API (v1.6). A route that is not accepted because none of its rules can be carried
//! out still holds its place: its requests are refused, they do not fall through to somebody else's rule.

use std::collections::BTreeSet;

use ambit_route::model::{BackendFault, Filter, Frontend, Group, RouteConfig, Rule, Target};
use ambit_route::{Effect, RuleError, RuleFault, Table};
use ambit_types::written::ParentRef;
use ambit_types::{Reason, ServiceKey};

use super::attach::{self, Attached, Unfit};
use super::{alone, references};
use crate::index::{Inputs, Settings};
use crate::input::{Key, Kind, Name, Route, RouteSpec, Service};
use crate::status::{ACCEPTED, Condition, PARTIALLY_INVALID, ParentReport, RESOLVED_REFS, Report};

mod import;

/// Most things wrong that one message lists.
const LISTED_MAX: usize = 8;

/// What is wrong in a route itself, whatever it is attached to.
pub(crate) fn rule_errors(inputs: &Inputs, settings: &Settings, key: &Key) -> Vec<RuleError> {
    let parent = inputs.route(key).and_then(|route| services(route).next().map(|(_, name)| name));
    let parent = parent.unwrap_or_else(|| key.name.clone());
    let Some(group) = alone(inputs, settings, key, &parent) else { return Vec::new() };
    let route = inputs.route(key);
    let frontend = Frontend {
        service: ServiceKey::new("", ""),
        port: 0,
        producer: Some(group),
        consumers: std::collections::BTreeMap::new(),
    };
    let config = RouteConfig { frontends: vec![frontend], destinations: Vec::new() };
    let (_, mut errors) = Table::compile(&config);
    // Whether references lead anywhere is a condition of its own.
    errors.retain(|error| error.effect != Effect::MirrorIsDropped);
    for error in &mut errors {
        error.field = import::field(route, std::mem::take(&mut error.field));
    }
    errors
}

/// The report of a route; nothing if there is no such route. `is_served` says whether a service has a waypoint.
pub(crate) fn of_route(
    inputs: &Inputs,
    settings: &Settings,
    key: &Key,
    errors: &[RuleError],
    is_served: &dyn Fn(&Name) -> bool,
) -> Option<Report> {
    let route = inputs.route(key)?;
    let parents = services(route).map(|(parent, service)| {
        let accepted = accepted(inputs, settings, route, parent, &service, errors, is_served);
        let resolved = resolved(route, &faults(alone(inputs, settings, key, &service)));
        let conditions = [Some(accepted), Some(resolved), partially_invalid(route, errors)];
        ParentReport { parent: parent.clone(), conditions: conditions.into_iter().flatten().collect() }
    });
    let parents = parents.collect();
    match &route.spec {
        RouteSpec::Virtual(spec) => import::report(settings, route, spec, parents),
        RouteSpec::Http(_) | RouteSpec::Grpc(_) | RouteSpec::Tls(_) | RouteSpec::Tcp(_) => {
            Some(Report { generation: route.generation, conditions: Vec::new(), parents })
        }
    }
}

/// Parents that are services, with their names.
fn services(route: &Route) -> impl Iterator<Item = (&ParentRef, Name)> {
    route.parents().iter().filter_map(|parent| Some((parent, references::parent(&route.name, parent)?)))
}

fn accepted(
    inputs: &Inputs,
    settings: &Settings,
    route: &Route,
    parent: &ParentRef,
    name: &Name,
    errors: &[RuleError],
    is_served: &dyn Fn(&Name) -> bool,
) -> Condition {
    let refused = |reason, message: String| Condition::fails(ACCEPTED, reason, message);
    let Some(service) = inputs.services.named(name) else {
        return refused("NoMatchingParent", format!("there is no Service {name}"));
    };
    match attach::unfit(service) {
        Some(Unfit::ExternalName) => {
            return refused("UnsupportedValue", format!("Service {name} is an ExternalName, an alias only"));
        }
        Some(Unfit::Headless) => {
            let words = format!("Service {name} is headless: it has no address that routes could apply to");
            return refused("UnsupportedValue", words);
        }
        None => {}
    }
    let ports: Vec<u16> = attach::ports(service, route, parent).map(|port| port.port).collect();
    if ports.is_empty() {
        return refused("NoMatchingParent", no_port(service, route, parent));
    }
    if let Some(words) = conflict(inputs, settings, service, route, &ports) {
        return refused("Conflicted", words);
    }
    let broken = broken_rules(errors);
    if broken.len() == rule_count(route) && !broken.is_empty() {
        let conflicts = errors.iter().any(|error| matches!(error.fault, RuleFault::Conflict { .. }));
        let reason = if conflicts { "IncompatibleFilters" } else { "UnsupportedValue" };
        return refused(reason, format!("no rule can be carried out: {}", listed(errors)));
    }
    let side = if route.name.namespace == service.name.namespace {
        "every client"
    } else {
        "clients of its namespace"
    };
    let message = if is_served(name) {
        format!("in force for {side}")
    } else {
        format!("for {side}, but no waypoint serves {name} ({})", Reason::L7WithoutWaypoint.code())
    };
    Condition::holds(ACCEPTED, "Accepted", message)
}

fn no_port(service: &Service, route: &Route, parent: &ParentRef) -> String {
    if route.kind() == Kind::VirtualService {
        return format!("Service {} has no port that carries HTTP", service.name);
    }
    let number = parent.port.map(|port| format!("number {port}"));
    let name = parent.section_name.as_ref().map(|name| format!("name {name}"));
    let wanted: Vec<String> = number.into_iter().chain(name).collect();
    format!("Service {} has no TCP port of {}", service.name, wanted.join(" and "))
}

/// Words if a stronger kind has taken every port.
fn conflict(
    inputs: &Inputs,
    settings: &Settings,
    service: &Service,
    route: &Route,
    ports: &[u16],
) -> Option<String> {
    if !attach::has_stronger(inputs, &Key::new(Kind::Service, service.name.clone()), route) {
        return None;
    }
    let attached = Attached::to(inputs, settings, service);
    let rivals: Option<Vec<&Route>> = ports.iter().map(|port| attached.stronger_than(route, *port)).collect();
    let rival = *rivals?.first()?;
    let kind = rival.kind().as_str();
    Some(format!(
        "{kind} {} is attached to the same port of {}; {kind} stands before {}",
        rival.name,
        service.name,
        route.kind().as_str()
    ))
}

fn rule_count(route: &Route) -> usize {
    match &route.spec {
        RouteSpec::Http(spec) => spec.rules.len().max(1),
        RouteSpec::Grpc(spec) => spec.rules.len(),
        RouteSpec::Virtual(spec) => spec.rules.len(),
        RouteSpec::Tls(_) | RouteSpec::Tcp(_) => 1,
    }
}

fn broken_rules(errors: &[RuleError]) -> BTreeSet<usize> {
    errors.iter().filter(|e| e.effect == Effect::RuleRefuses).map(|e| e.rule).collect()
}

fn partially_invalid(route: &Route, errors: &[RuleError]) -> Option<Condition> {
    let broken = broken_rules(errors).len();
    if errors.is_empty() || broken == rule_count(route) {
        return None;
    }
    let begin = if broken > 0 { "Dropped Rule" } else { "Fall Back" };
    let message = format!("{begin}: {}; requests for what is broken are answered 500", listed(errors));
    Some(Condition::holds(PARTIALLY_INVALID, "UnsupportedValue", message))
}

fn listed(errors: &[RuleError]) -> String {
    shown(errors.iter().map(|error| format!("{}: {}", error.field, error.fault)))
}

fn shown(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let mut text = all.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > LISTED_MAX {
        text.push_str(&format!("; and {} more", all.len() - LISTED_MAX));
    }
    text
}

/// A reference that leads nowhere.
struct BadRef {
    field: String,
    fault: BackendFault,
    what: String,
}

fn faults(group: Option<Group>) -> Vec<BadRef> {
    let mut found = Vec::new();
    match group {
        None => {}
        Some(Group::Http(routes) | Group::Listed(routes) | Group::Unrouted(routes)) => {
            routes.iter().for_each(|route| of_rules(&route.rules, &mut found));
        }
        Some(Group::Grpc(routes)) => routes.iter().for_each(|route| of_rules(&route.rules, &mut found)),
        Some(Group::Tls(routes) | Group::Tcp(routes)) => {
            for (i, backend) in routes.iter().flat_map(|route| &route.backends).enumerate() {
                check(&backend.target, || format!("rules[0].backendRefs[{i}]"), &mut found);
            }
        }
    }
    found
}

fn of_rules<M>(rules: &[Rule<M>], found: &mut Vec<BadRef>) {
    for (i, rule) in rules.iter().enumerate() {
        mirrors(&rule.filters, &format!("rules[{i}]"), found);
        for (j, backend) in rule.backends.iter().enumerate() {
            let at = format!("rules[{i}].backendRefs[{j}]");
            check(&backend.target, || at.clone(), found);
            mirrors(&backend.filters, &at, found);
        }
    }
}

fn mirrors(filters: &[Filter], at: &str, found: &mut Vec<BadRef>) {
    for (i, filter) in filters.iter().enumerate() {
        if let Filter::Mirror(mirror) = filter {
            check(&mirror.target, || format!("{at}.filters[{i}].requestMirror.backendRef"), found);
        }
    }
}

fn check(target: &Target, field: impl Fn() -> String, found: &mut Vec<BadRef>) {
    match target {
        Target::Service { .. } => {}
        Target::Invalid { fault, what } => {
            found.push(BadRef { field: field(), fault: *fault, what: what.to_string() });
        }
    }
}

fn resolved(route: &Route, faults: &[BadRef]) -> Condition {
    let Some(first) = faults.first() else {
        return Condition::holds(RESOLVED_REFS, "ResolvedRefs", "every reference leads somewhere");
    };
    let reason = match first.fault {
        BackendFault::BackendNotFound => "BackendNotFound",
        BackendFault::InvalidKind => "InvalidKind",
        BackendFault::RefNotPermitted => "RefNotPermitted",
        BackendFault::UnsupportedProtocol => "UnsupportedProtocol",
    };
    let words = |fault: &BadRef| {
        let why = match fault.fault {
            BackendFault::BackendNotFound => "is not there",
            BackendFault::InvalidKind => "cannot be a backend",
            BackendFault::RefNotPermitted => "is not granted by a ReferenceGrant of its namespace",
            BackendFault::UnsupportedProtocol => "does not carry HTTP, by its appProtocol",
        };
        format!("{}: {} {why}", import::field(Some(route), fault.field.clone()), fault.what)
    };
    Condition::fails(RESOLVED_REFS, reason, shown(faults.iter().map(words)))
}
