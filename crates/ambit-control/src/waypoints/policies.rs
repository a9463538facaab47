//! Authorization policies and request authentications of waypoints: compiled, and where each one applies.
//!
//! By `targetRefs` only: of a Service or ServiceEntry of the policy's namespace, of the Gateway, or, in the root
//! namespace, of the class of waypoints. What selects workloads, or a whole namespace, is for nodes. A policy that
//! cannot be compiled still applies: the waypoint allows nothing while it holds one. The same goes for services that
//! ask for a waypoint which may not serve them.

use std::collections::BTreeSet;

use ambit_policy::http::{self, Policy};
use ambit_policy::jwt;
use ambit_types::{PolicyKey, Reason, ServiceKey};

use super::gateway::{CLASS, is_waypoint};
use super::resources::Reach;
use crate::index::{Inputs, Settings};
use crate::input::{HttpPolicy, Name, RequestAuthentication, Target};
use crate::routes::references::{Attachment, attachment, attachments};
use crate::routes::service_key;
use crate::status::{Condition, Report, WAYPOINT_ACCEPTED};

/// Name of what stands for the policies of services that a waypoint does not serve.
const UNSERVED: &str = "ambit_unserved_services";

/// An authorization policy as waypoints evaluate it, or every mistake in it.
pub(crate) fn compile(settings: &Settings, of: &HttpPolicy) -> Result<Policy, Vec<String>> {
    let options = http::Options { trust_domain: settings.trust_domain.clone(), ..http::Options::default() };
    let compiled = http::compile(&key(&of.name), &of.spec, of.dry_run, &options);
    compiled.map_err(|invalid| invalid.iter().map(ToString::to_string).collect())
}

/// Rules of a request authentication, or every mistake in them.
pub(crate) fn compile_rules(of: &RequestAuthentication) -> Result<Vec<jwt::Rule>, Vec<String>> {
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    for (at, rule) in of.rules.iter().enumerate() {
        match jwt::compile(rule) {
            Ok(rule) => rules.push(rule),
            Err(invalid) => wrong.extend(invalid.iter().map(|one| format!("jwtRules[{at}].{one}"))),
        }
    }
    if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
}

/// Key of a policy.
pub(crate) fn key(name: &Name) -> PolicyKey {
    PolicyKey::new(name.namespace.clone(), name.name.clone())
}

/// Key of what stands for every policy of services that ask for a waypoint and are not served by it. An underscore is
/// in no object's name.
pub(crate) fn unserved(waypoint: &Name) -> PolicyKey {
    PolicyKey::new(waypoint.namespace.clone(), UNSERVED)
}

/// What a policy and a request authentication have in common.
pub(crate) struct Targeted<'a> {
    pub(crate) name: &'a Name,
    pub(crate) generation: i64,
    pub(crate) targets: &'a [Target],
}

impl<'a> Targeted<'a> {
    pub(crate) fn policy(of: &'a HttpPolicy) -> Self {
        Self { name: &of.name, generation: of.generation, targets: &of.targets }
    }

    pub(crate) fn authentication(of: &'a RequestAuthentication) -> Self {
        Self { name: &of.name, generation: of.generation, targets: &of.targets }
    }

    /// Where it applies at a waypoint that serves some services; nothing if it does not.
    pub(crate) fn reach(
        &self,
        inputs: &Inputs,
        settings: &Settings,
        waypoint: &Name,
        bound: &BTreeSet<ServiceKey>,
    ) -> Option<Reach> {
        let mut services = BTreeSet::new();
        for target in attachments(self.name, self.targets) {
            let is_whole = match &target {
                Attachment::Gateway(name) => name == waypoint,
                Attachment::Class(class) => self.is_for_class(settings, class),
                Attachment::Service(_) | Attachment::ServiceEntry(_) => false,
            };
            if is_whole {
                return Some(Reach::All);
            }
            let named = services_of(inputs, settings, &target).into_iter();
            services.extend(named.filter(|key| bound.contains(key)));
        }
        (!services.is_empty()).then_some(Reach::Services(services))
    }

    fn is_for_class(&self, settings: &Settings, class: &str) -> bool {
        self.name.namespace == settings.root_namespace && class == CLASS
    }

    /// How it stands; `is_served` says whether a service has a waypoint.
    pub(crate) fn report(
        &self,
        inputs: &Inputs,
        settings: &Settings,
        mistakes: &[String],
        is_served: &dyn Fn(&ServiceKey) -> bool,
    ) -> Report {
        let faults: Vec<(&'static str, String)> =
            self.targets.iter().filter_map(|one| self.fault(inputs, settings, one, is_served)).collect();
        let words: Vec<&str> = faults.iter().map(|(_, words)| words.as_str()).collect();
        let condition = if self.targets.is_empty() {
            let words = "it has no targetRefs, so that no waypoint enforces it; nodes cannot";
            Condition::fails(WAYPOINT_ACCEPTED, "TargetNotFound", words)
        } else if !mistakes.is_empty() {
            let words = format!("{}; while it stands, its targets allow nothing", mistakes.join("; "));
            Condition::fails(WAYPOINT_ACCEPTED, "Invalid", words)
        } else if faults.len() == self.targets.len() {
            Condition::fails(WAYPOINT_ACCEPTED, faults[0].0, words.join("; "))
        } else if words.is_empty() {
            Condition::holds(WAYPOINT_ACCEPTED, "Accepted", "enforced by the waypoint")
        } else {
            let words = format!("enforced in part; {}", words.join("; "));
            Condition::holds(WAYPOINT_ACCEPTED, "Accepted", words)
        };
        Report { generation: self.generation, conditions: vec![condition], parents: Vec::new() }
    }

    /// Why nobody enforces it at a target.
    fn fault(
        &self,
        inputs: &Inputs,
        settings: &Settings,
        target: &Target,
        is_served: &dyn Fn(&ServiceKey) -> bool,
    ) -> Option<(&'static str, String)> {
        let not_found = |words: String| Some(("TargetNotFound", words));
        let Some(attachment) = attachment(self.name, target) else {
            return not_found(format!("{} {} is nothing a policy attaches to", target.kind, target.name));
        };
        let key = attachment.key();
        match &attachment {
            Attachment::Gateway(name) => match inputs.gateways.named(name) {
                Some(gateway) if is_waypoint(inputs, gateway) => None,
                Some(_) => not_found(format!("{key} is no waypoint")),
                None => not_found(format!("there is no {key}")),
            },
            Attachment::Class(class) if self.is_for_class(settings, class) => None,
            Attachment::Class(_) => not_found(format!(
                "a class is a target only for {CLASS}, of a policy in namespace {}",
                settings.root_namespace
            )),
            Attachment::Service(_) | Attachment::ServiceEntry(_) => {
                let services = services_of(inputs, settings, &attachment);
                if services.is_empty() {
                    return not_found(format!("there is no {key}"));
                }
                let code = Reason::L7WithoutWaypoint.code();
                let words = || format!("no waypoint serves {key} ({code})");
                (!services.iter().any(is_served)).then(|| ("NotBound", words()))
            }
        }
    }
}

/// Services that a target means.
fn services_of(inputs: &Inputs, settings: &Settings, target: &Attachment) -> Vec<ServiceKey> {
    match target {
        Attachment::Service(name) => {
            let service = inputs.services.named(name);
            service.map(|service| service_key(settings, &service.name)).into_iter().collect()
        }
        Attachment::ServiceEntry(name) => {
            let entry = inputs.service_entries.named(name);
            let hosts = entry.iter().flat_map(|entry| &entry.hosts);
            hosts.map(|host| ServiceKey::new(name.namespace.clone(), host.clone())).collect()
        }
        Attachment::Gateway(_) | Attachment::Class(_) => Vec::new(),
    }
}
