//! AuthorizationPolicy, PeerAuthentication and RequestAuthentication as they were written.
//!
//! An AuthorizationPolicy with targets is for waypoints and keeps its whole body; one without is for nodes, reduced to
//! what they evaluate.

use std::collections::BTreeMap;

use ambit_control::input::{
    AuthorizationPolicy, Condition, HttpPolicy, Labels, Mode, Object, Operation, PeerAuthentication,
    PolicyAction, PolicyRule, RequestAuthentication, Source, Target, Terms,
};
use ambit_manifest::{breakglass, istio};
use ambit_types::Str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Reader, created, generation, words};

/// Annotation that makes a policy speak without acting.
const DRY_RUN: &str = "istio.io/dry-run";

impl Reader<'_> {
    /// A policy of nodes or of waypoints, as its targets say; nothing and a problem if its body cannot be carried over.
    pub(super) fn policy(&mut self, from: &istio::AuthorizationPolicy) -> Option<Object> {
        let targets = targets(from.spec.target_ref.as_ref(), from.spec.target_refs.as_deref());
        if targets.is_empty() {
            return Some(Object::AuthorizationPolicy(Box::new(self.authorization_policy(from))));
        }
        self.http_policy(from, targets).map(|made| Object::HttpPolicy(Box::new(made)))
    }

    fn authorization_policy(&mut self, from: &istio::AuthorizationPolicy) -> AuthorizationPolicy {
        let spec = &from.spec;
        AuthorizationPolicy {
            name: self.name(),
            generation: generation(&from.metadata),
            selector: selector(spec.selector.as_ref()),
            targets: 0,
            action: match spec.action.unwrap_or_default() {
                istio::PolicyAction::Allow => PolicyAction::Allow,
                istio::PolicyAction::Deny => PolicyAction::Deny,
                istio::PolicyAction::Audit => PolicyAction::Audit,
                istio::PolicyAction::Custom => PolicyAction::Custom,
            },
            rules: spec.rules.as_deref().unwrap_or_default().iter().map(rule).collect(),
            dry_run: self.dry_run(from),
            until: breakglass::term(from).map(|term| term.until),
        }
    }

    fn http_policy(&mut self, from: &istio::AuthorizationPolicy, targets: Vec<Target>) -> Option<HttpPolicy> {
        let dry_run = self.dry_run(from);
        let mut body = from.spec.clone();
        // Where it applies is said beside the body. A selector stays in it: with targets it has no meaning, and what
        // has none is refused.
        (body.target_ref, body.target_refs) = (None, None);
        let spec = self.carried("spec", &body)?;
        Some(HttpPolicy { name: self.name(), generation: generation(&from.metadata), targets, dry_run, spec })
    }

    pub(super) fn request_authentication(
        &mut self,
        from: &istio::RequestAuthentication,
    ) -> Option<RequestAuthentication> {
        let spec = &from.spec;
        let mut rules = Vec::new();
        for (index, rule) in spec.jwt_rules.iter().flatten().enumerate() {
            rules.push(self.carried(&format!("spec.jwtRules[{index}]"), rule)?);
        }
        Some(RequestAuthentication {
            name: self.name(),
            generation: generation(&from.metadata),
            targets: targets(spec.target_ref.as_ref(), spec.target_refs.as_deref()),
            rules,
        })
    }

    /// The same body in the words of the crate that gives it meaning; nothing and a problem if that has no such words.
    fn carried<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Option<T> {
        match serde_json::to_value(body).and_then(serde_json::from_value) {
            Ok(carried) => Some(carried),
            Err(cause) => {
                self.bad(path, format!("a waypoint cannot evaluate this: {cause}"));
                None
            }
        }
    }

    fn dry_run(&mut self, from: &istio::AuthorizationPolicy) -> bool {
        let annotation = from.metadata.annotations.as_ref().and_then(|a| a.get(DRY_RUN));
        annotation.is_some_and(|text| self.boolean(text))
    }

    /// A word as Go's `strconv.ParseBool` takes it, which is what Istio reads this annotation with.
    fn boolean(&mut self, word: &str) -> bool {
        match word {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => {
                let path = format!("metadata.annotations[{DRY_RUN}]");
                self.bad(path, format!("{other:?} is neither \"true\" nor \"false\""));
                false
            }
        }
    }

    pub(super) fn peer_authentication(&mut self, from: &istio::PeerAuthentication) -> PeerAuthentication {
        let mut ports = BTreeMap::new();
        for (number, mtls) in from.spec.port_level_mtls.iter().flatten() {
            let port = self.port(format!("spec.portLevelMtls[{number}]"), *number);
            ports.insert(port, mode(Some(mtls)));
        }
        PeerAuthentication {
            name: self.name(),
            created: created(&from.metadata),
            selector: selector(from.spec.selector.as_ref()),
            mode: mode(from.spec.mtls.as_ref()),
            ports,
        }
    }
}

fn targets(one: Option<&istio::TargetReference>, more: Option<&[istio::TargetReference]>) -> Vec<Target> {
    let target = |of: &istio::TargetReference| Target {
        group: Str::from(of.group.as_str()),
        kind: Str::from(of.kind.as_str()),
        name: Str::from(of.name.as_str()),
    };
    one.into_iter().chain(more.unwrap_or_default()).map(target).collect()
}

fn mode(from: Option<&istio::MutualTls>) -> Mode {
    match from.and_then(|m| m.mode).unwrap_or_default() {
        istio::MutualTlsMode::Unset => Mode::Unset,
        istio::MutualTlsMode::Disable => Mode::Disable,
        istio::MutualTlsMode::Permissive => Mode::Permissive,
        istio::MutualTlsMode::Strict => Mode::Strict,
    }
}

fn selector(from: Option<&istio::WorkloadSelector>) -> Labels {
    words(from.map(|s| &s.match_labels))
}

fn rule(from: &istio::AuthorizationRule) -> PolicyRule {
    let empty = istio::RuleSource::default();
    let sources = from.from.iter().flatten().map(|f| f.source.as_ref().unwrap_or(&empty));
    let anything = istio::Operation::default();
    let operations = from.to.iter().flatten().map(|t| t.operation.as_ref().unwrap_or(&anything));
    PolicyRule {
        from: sources.map(source).collect(),
        to: operations.map(operation).collect(),
        when: from.when.iter().flatten().map(condition).collect(),
    }
}

fn source(from: &istio::RuleSource) -> Source {
    Source {
        principals: terms(&from.principals, &from.not_principals),
        request_principals: terms(&from.request_principals, &from.not_request_principals),
        namespaces: terms(&from.namespaces, &from.not_namespaces),
        ip_blocks: terms(&from.ip_blocks, &from.not_ip_blocks),
        remote_ip_blocks: terms(&from.remote_ip_blocks, &from.not_remote_ip_blocks),
        service_accounts: terms(&from.service_accounts, &from.not_service_accounts),
        trust_domains: terms(&from.trust_domains, &from.not_trust_domains),
    }
}

fn operation(from: &istio::Operation) -> Operation {
    Operation {
        hosts: terms(&from.hosts, &from.not_hosts),
        ports: terms(&from.ports, &from.not_ports),
        methods: terms(&from.methods, &from.not_methods),
        paths: terms(&from.paths, &from.not_paths),
    }
}

fn condition(from: &istio::Condition) -> Condition {
    Condition { key: Str::from(from.key.as_str()), values: terms(&from.values, &from.not_values) }
}

fn terms(any: &Option<Vec<String>>, none: &Option<Vec<String>>) -> Terms {
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|t| Str::from(t.as_str())).collect();
    Terms { any: words(any), none: words(none) }
}
