//! AuthorizationPolicy and PeerAuthentication as they were written.

use std::collections::BTreeMap;

use ambit_control::input::{
    AuthorizationPolicy, Condition, Labels, Mode, Operation, PeerAuthentication, PolicyAction, PolicyRule,
    Source, Terms,
};
use ambit_manifest::istio;
use ambit_types::Str;

use super::{Reader, created, words};

/// Annotation that makes a policy speak without acting.
const DRY_RUN: &str = "istio.io/dry-run";

impl Reader<'_> {
    pub(super) fn authorization_policy(&mut self, from: &istio::AuthorizationPolicy) -> AuthorizationPolicy {
        let spec = &from.spec;
        let annotation = from.metadata.annotations.as_ref().and_then(|a| a.get(DRY_RUN));
        let dry_run = annotation.is_some_and(|text| self.boolean(text));
        let targets =
            usize::from(spec.target_ref.is_some()) + spec.target_refs.as_deref().unwrap_or_default().len();
        AuthorizationPolicy {
            name: self.name(),
            selector: selector(spec.selector.as_ref()),
            targets,
            action: match spec.action.unwrap_or_default() {
                istio::PolicyAction::Allow => PolicyAction::Allow,
                istio::PolicyAction::Deny => PolicyAction::Deny,
                istio::PolicyAction::Audit => PolicyAction::Audit,
                istio::PolicyAction::Custom => PolicyAction::Custom,
            },
            rules: spec.rules.as_deref().unwrap_or_default().iter().map(rule).collect(),
            dry_run,
        }
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
