//! External authorizers: which the mesh configuration has, which waypoint needs which, and what is wrong with them.
//!
//! A policy that names none of them is sent all the same: where it matches, the waypoint has nobody to ask and refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_policy::http::model::Action;
use ambit_policy::http::provider::Provider;
use ambit_policy::http::written;
use ambit_types::{Reason, Str};

use super::resources::Resources;
use crate::index::{Inputs, Settings};
use crate::input::{HttpPolicy, Key, Kind, MESH_CONFIG, Name};
use crate::status::{ACCEPTED, Condition, PARTIALLY_INVALID, RESOLVED_REFS, Report};

/// Most mistakes that one message lists.
const LISTED_MAX: usize = 8;

/// The authorizers of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Providers {
    /// Those that can be asked.
    good: BTreeMap<Str, Arc<Provider>>,
    /// Mistakes by name, which may be empty, in the order written.
    bad: Vec<(Str, Vec<String>)>,
}

/// The object that says which there are.
pub(crate) fn key(settings: &Settings) -> Key {
    Key::new(Kind::MeshConfig, Name::new(settings.root_namespace.clone(), MESH_CONFIG))
}

/// The provider that a policy asks, if it asks any.
pub(crate) fn named_by(policy: &HttpPolicy) -> Option<&str> {
    let asks = policy.spec.action == written::Action::Custom;
    policy.spec.provider.as_ref().map(|provider| provider.name.as_str()).filter(|_| asks)
}

impl Providers {
    /// Those of the root namespace's configuration. Of two with one name the second is a mistake.
    pub(crate) fn of(inputs: &Inputs, settings: &Settings) -> Self {
        let mut all = Self::default();
        let config = inputs.mesh_configs.named(&key(settings).name);
        for written in config.iter().flat_map(|config| &config.providers) {
            match written.compile() {
                Ok(provider) if all.good.contains_key(&provider.name) => {
                    let mistake = format!("{}.name: {} is given twice", written.at, provider.name);
                    all.bad.push((Str::from(""), vec![mistake]));
                }
                Ok(provider) => _ = all.good.insert(provider.name.clone(), Arc::new(provider)),
                Err(mistakes) => all.bad.push((written.name.clone(), mistakes)),
            }
        }
        all
    }

    /// Gives a waypoint those that its policies name.
    pub(crate) fn add_to(&self, resources: &mut Resources) {
        let policies = resources.policies.values().filter_map(|policy| policy.of.as_ref());
        let named = policies.filter_map(|policy| match &policy.action {
            Action::Custom(name) => self.good.get_key_value(name),
            Action::Allow | Action::Deny | Action::Audit => None,
        });
        resources.providers = named.map(|(name, provider)| (name.clone(), provider.clone())).collect();
    }

    /// Whether a policy has somebody to ask; nothing if it asks nobody.
    pub(crate) fn condition(&self, settings: &Settings, policy: &HttpPolicy) -> Option<Condition> {
        let name = named_by(policy).filter(|name| !name.is_empty())?;
        if self.good.contains_key(name) {
            return Some(Condition::holds(
                RESOLVED_REFS,
                "ResolvedRefs",
                format!("provider {name} is known"),
            ));
        }
        let config = key(settings);
        let why = if self.bad.iter().any(|(bad, _)| **bad == *name) {
            format!("provider {name} of {config} has a mistake")
        } else {
            format!("{config} has no extension provider {name} that can be asked")
        };
        let code = Reason::ExtAuthzUnavailable.code();
        let words = format!("{why}; requests that a rule matches are refused ({code})");
        Some(Condition::fails(RESOLVED_REFS, "ProviderNotFound", words))
    }

    /// How the mesh configuration stands; nothing about objects that are not it, or that have no authorizers.
    pub(crate) fn report(&self, inputs: &Inputs, settings: &Settings, name: &Name) -> Option<Report> {
        let config = inputs.mesh_configs.named(name).filter(|_| key(settings).name == *name)?;
        if config.providers.is_empty() {
            return None;
        }
        let mistakes: Vec<&String> = self.bad.iter().flat_map(|(_, mistakes)| mistakes).collect();
        let mut words =
            mistakes.iter().take(LISTED_MAX).map(|one| one.as_str()).collect::<Vec<_>>().join("; ");
        if mistakes.len() > LISTED_MAX {
            words.push_str(&format!("; and {} more", mistakes.len() - LISTED_MAX));
        }
        let names: Vec<&str> = self.good.keys().map(|name| &**name).collect();
        let good = || format!("extension providers in force: {}", names.join(", "));
        let conditions = match (names.is_empty(), mistakes.is_empty()) {
            (_, true) => vec![Condition::holds(ACCEPTED, "Accepted", good())],
            (false, false) => vec![
                Condition::holds(ACCEPTED, "Accepted", good()),
                Condition::holds(PARTIALLY_INVALID, "Invalid", words),
            ],
            (true, false) => vec![Condition::fails(ACCEPTED, "Invalid", words)],
        };
        Some(Report { generation: 0, conditions, parents: Vec::new() })
    }
}
