//! AuthorizationPolicy, PeerAuthentication, RequestAuthentication.
//!
//! Refuses what would be read two ways or would silently do nothing: in a policy either is a hole.

use serde_json::Value;

use super::{Checks, text};
use crate::breakglass;
use crate::istio::{
    AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, Condition, JwtRule, Operation,
    PeerAuthentication, PolicyAction, RequestAuthentication, RuleSource, TargetReference, WorkloadSelector,
};
use crate::nearest::{listed, nearest};

const RULES_MAX: usize = 512;
const TARGETS_MAX: usize = 16;
const SERVICE_ACCOUNTS_MAX: usize = 16;
const SELECTOR_LABELS_MAX: usize = 4096;
const JWT_RULES_MAX: usize = 4096;
const URI_BYTES_MAX: usize = 2048;
const WORD_CLAIMS_MAX: usize = 64;
/// Makes a policy speak without acting.
const DRY_RUN: &str = "istio.io/dry-run";
/// Members of a JWK that are secret (RFC 7518 section 6).
const SECRET_MEMBERS: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Attributes that `when` can ask for.
const CONDITION_KEYS: &[&str] = &[
    "connection.sni",
    "destination.ip",
    "destination.port",
    "remote.ip",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.principal",
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
];
/// Attributes of which `when` asks for one part, in brackets.
const CONDITION_MAPS: &[&str] = &["request.auth.claims", "request.headers"];
/// Attributes of Envoy's filters.
const CONDITION_FILTERS: &str = "experimental.envoy.filters.";

/// Group and kind of what a policy can be attached to.
const TARGETS: &[(&str, &str)] = &[
    ("", "Service"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("networking.istio.io", "ServiceEntry"),
];

pub(super) fn authorization_policy(c: &mut Checks<'_>, policy: &AuthorizationPolicy) {
    let spec = &policy.spec;
    scope(c, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_deref());
    action(c, spec);
    for (field, words) in breakglass::faults(policy) {
        c.bad(field, words);
    }
    let dry_run = policy.metadata.annotations.as_ref().and_then(|a| a.get(DRY_RUN));
    let acts = matches!(spec.action, Some(PolicyAction::Audit | PolicyAction::Custom));
    if acts && dry_run.is_some_and(|word| word == "true") {
        c.bad(format!("metadata.annotations[{DRY_RUN}]"), "only ALLOW and DENY can be dry-run");
    }
    let rules = spec.rules.as_deref().unwrap_or_default();
    c.at_most("spec.rules", rules, RULES_MAX);
    for (i, one) in rules.iter().enumerate() {
        rule(c, &format!("spec.rules[{i}]"), one);
    }
}

fn action(c: &mut Checks<'_>, spec: &AuthorizationPolicySpec) {
    let no_rules = spec.rules.as_ref().is_none_or(Vec::is_empty);
    let provider = spec.provider.as_ref();
    match spec.action.unwrap_or_default() {
        PolicyAction::Allow | PolicyAction::Audit => {}
        PolicyAction::Deny if no_rules => {
            c.bad("spec.rules", "DENY without rules denies nothing; to deny everything write rules: [{}]");
        }
        PolicyAction::Custom if no_rules => c.bad("spec.rules", "CUSTOM needs rules"),
        PolicyAction::Deny | PolicyAction::Custom => {}
    }
    match (spec.action, provider) {
        (Some(PolicyAction::Custom), None) => c.missing("spec.provider"),
        (Some(PolicyAction::Custom), Some(provider)) if provider.name.is_empty() => {
            c.missing("spec.provider.name")
        }
        (Some(PolicyAction::Custom), Some(_)) | (_, None) => {}
        (_, Some(_)) => c.bad("spec.provider", "only the action CUSTOM has a provider"),
    }
}

/// What a policy is about: at most one of the three ways to say it.
fn scope(
    c: &mut Checks<'_>,
    selector: Option<&WorkloadSelector>,
    target: Option<&TargetReference>,
    targets: Option<&[TargetReference]>,
) {
    let given = [
        ("spec.selector", selector.is_some()),
        ("spec.targetRef", target.is_some()),
        ("spec.targetRefs", targets.is_some_and(|t| !t.is_empty())),
    ];
    let mut given = given.into_iter().filter(|(_, is)| *is).map(|(path, _)| path);
    if let (Some(_), Some(second)) = (given.next(), given.next()) {
        c.bad(second, "only one of selector, targetRef, targetRefs can be given");
    }
    if let Some(selector) = selector {
        workload_selector(c, selector);
    }
    if let Some(target) = target {
        target_reference(c, "spec.targetRef", target);
    }
    c.at_most("spec.targetRefs", targets.unwrap_or_default(), TARGETS_MAX);
    for (i, target) in targets.iter().flat_map(|t| t.iter()).enumerate() {
        target_reference(c, &format!("spec.targetRefs[{i}]"), target);
    }
}

pub(super) fn workload_selector(c: &mut Checks<'_>, selector: &WorkloadSelector) {
    let labels = &selector.match_labels;
    if labels.len() > SELECTOR_LABELS_MAX {
        c.bad("spec.selector.matchLabels", format!("more than {SELECTOR_LABELS_MAX} labels"));
    }
    for (key, value) in labels {
        let at = format!("spec.selector.matchLabels[{key}]");
        if key.contains('*') || value.contains('*') {
            c.bad(at, "a selector compares labels exactly, * is not a wildcard in it");
        } else {
            c.text(&at, key, text::qualified_name);
            c.text(&at, value, text::label_value);
        }
    }
}

fn target_reference(c: &mut Checks<'_>, at: &str, target: &TargetReference) {
    let group = if target.group == "core" { "" } else { target.group.as_str() };
    if target.kind.is_empty() {
        c.missing(format!("{at}.kind"));
    } else if !TARGETS.iter().any(|(_, kind)| *kind == target.kind) {
        let kinds = TARGETS.iter().map(|(_, kind)| *kind);
        let words = format!("\"{}\" is not a valid value, valid are {}", target.kind, listed(kinds.clone()));
        c.near(format!("{at}.kind"), words, nearest(&target.kind, kinds));
    } else if let Some((right, _)) = TARGETS.iter().find(|(_, kind)| *kind == target.kind)
        && *right != group
    {
        let words = format!("\"{}\" is not the group of {}", target.group, target.kind);
        c.near(format!("{at}.group"), words, Some(right).filter(|r| !r.is_empty()).copied());
    }
    if target.name.is_empty() {
        c.missing(format!("{at}.name"));
    }
    if target.namespace.as_deref().is_some_and(|n| !n.is_empty()) {
        c.bad(format!("{at}.namespace"), "a target is always in the policy's own namespace; leave this out");
    }
}

fn rule(c: &mut Checks<'_>, at: &str, rule: &AuthorizationRule) {
    for (field, count) in [("from", rule.from.as_ref().map(Vec::len)), ("to", rule.to.as_ref().map(Vec::len))]
    {
        match count {
            Some(0) => c.bad(format!("{at}.{field}"), "must not be empty; leave it out to match everything"),
            Some(n) if n > RULES_MAX => {
                c.bad(format!("{at}.{field}"), format!("more than {RULES_MAX} elements"))
            }
            Some(_) | None => {}
        }
    }
    for (i, from) in rule.from.iter().flatten().enumerate() {
        let at = format!("{at}.from[{i}]");
        match &from.source {
            None => c.missing(format!("{at}.source")),
            Some(one) => source(c, &format!("{at}.source"), one),
        }
    }
    for (i, to) in rule.to.iter().flatten().enumerate() {
        let at = format!("{at}.to[{i}]");
        match &to.operation {
            None => c.missing(format!("{at}.operation")),
            Some(one) => operation(c, &format!("{at}.operation"), one),
        }
    }
    for (i, one) in rule.when.iter().flatten().enumerate() {
        condition(c, &format!("{at}.when[{i}]"), one);
    }
}

fn source(c: &mut Checks<'_>, at: &str, source: &RuleSource) {
    let lists = source.lists();
    if lists.iter().all(|(_, list)| list.is_empty()) {
        let known = listed(lists.iter().map(|(name, _)| *name));
        return c.bad(at, format!("an empty source matches nothing certain; give one of {known}"));
    }
    for (field, values) in &lists {
        for (i, value) in values.iter().enumerate() {
            source_value(c, &format!("{at}.{field}[{i}]"), field, value);
        }
    }
    let has = |name: &str| lists.iter().any(|(n, list)| *n == name && !list.is_empty());
    for field in ["serviceAccounts", "notServiceAccounts"].into_iter().filter(|f| has(f)) {
        let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
        if let Some(other) = others.into_iter().find(|o| has(o)) {
            c.bad(format!("{at}.{field}"), format!("not together with {other}"));
        }
    }
    for (field, list) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        c.at_most(format!("{at}.{field}"), list.as_deref().unwrap_or_default(), SERVICE_ACCOUNTS_MAX);
    }
}

fn source_value(c: &mut Checks<'_>, at: &str, field: &str, value: &str) {
    if value.is_empty() {
        return c.bad(at, "must not be empty");
    }
    match field {
        "ipBlocks" | "notIpBlocks" | "remoteIpBlocks" | "notRemoteIpBlocks" => c.ip_or_cidr(at, value),
        "serviceAccounts" | "notServiceAccounts" => service_account(c, at, value),
        "principals" | "notPrincipals" => {
            if let Some(bare) = value.strip_prefix("spiffe://") {
                c.near(at, "a principal is written without spiffe://", Some(bare));
            }
        }
        _ => {}
    }
}

fn service_account(c: &mut Checks<'_>, at: &str, value: &str) {
    let (namespace, name) = value.split_once('/').unwrap_or(("default", value));
    if value.contains('*') {
        c.bad(at, "a service account is compared exactly, * is not a wildcard here; use principals");
    } else if !text::is_dns_label(namespace) || text::dns_subdomain(name).is_err() {
        c.bad(at, format!("\"{value}\" is not a service account, which is NAME or NAMESPACE/NAME"));
    }
}

fn operation(c: &mut Checks<'_>, at: &str, operation: &Operation) {
    let lists = operation.lists();
    if lists.iter().all(|(_, list)| list.is_empty()) {
        let known = listed(lists.iter().map(|(name, _)| *name));
        return c.bad(at, format!("an empty operation matches nothing certain; give one of {known}"));
    }
    for (field, values) in &lists {
        for (i, value) in values.iter().enumerate() {
            let at = format!("{at}.{field}[{i}]");
            match *field {
                _ if value.is_empty() => c.bad(at, "must not be empty"),
                "ports" | "notPorts" => port_text(c, &at, value),
                "paths" | "notPaths" => path_template(c, &at, value),
                _ => {}
            }
        }
    }
}

fn port_text(c: &mut Checks<'_>, at: &str, value: &str) {
    match value.parse::<i64>() {
        Ok(port) => c.port(at, port),
        Err(_) => c.bad(at, format!("\"{value}\" is not a port, ports are 1 to 65535")),
    }
}

/// `{*}` stands for one part of a path and `{**}` for any number of them; nothing else is in braces.
fn path_template(c: &mut Checks<'_>, at: &str, value: &str) {
    if !value.contains(['{', '}']) {
        return;
    }
    let mut open_ended = false;
    for part in value.split('/') {
        let braces = part.contains(['{', '}']);
        if braces && part != "{*}" && part != "{**}" {
            return c.bad(at, format!("\"{part}\" is not a template, which is {{*}} or {{**}} alone"));
        }
        if braces && open_ended {
            return c.bad(at, "no template can follow {**}");
        }
        open_ended |= part == "{**}";
    }
    if value.contains('*') && value.replace("{**}", "").replace("{*}", "").contains('*') {
        c.bad(at, "a path has either templates or *, not both");
    }
}

fn condition(c: &mut Checks<'_>, at: &str, condition: &Condition) {
    let key = condition.key.as_str();
    let values = condition.values.as_deref().unwrap_or_default();
    let not_values = condition.not_values.as_deref().unwrap_or_default();
    if values.is_empty() && not_values.is_empty() {
        c.bad(at, "values or notValues is needed");
    }
    if key.is_empty() {
        return c.missing(format!("{at}.key"));
    }
    condition_key(c, &format!("{at}.key"), key);
    for (field, list) in [("values", values), ("notValues", not_values)] {
        for (i, value) in list.iter().enumerate() {
            let at = format!("{at}.{field}[{i}]");
            match key {
                _ if value.is_empty() => c.bad(at, "must not be empty"),
                "source.ip" | "remote.ip" | "destination.ip" => c.ip_or_cidr(at, value),
                "destination.port" => port_text(c, &at, value),
                "source.serviceAccount" => service_account(c, &at, value),
                _ => {}
            }
        }
    }
}

fn condition_key(c: &mut Checks<'_>, at: &str, key: &str) {
    let part = key.strip_suffix(']').and_then(|k| k.split_once('['));
    if key.starts_with(CONDITION_FILTERS) {
        return c.bad(at, format!("\"{key}\" asks for what an Envoy filter left behind, which is not there"));
    }
    let known = CONDITION_KEYS.contains(&key)
        || part.is_some_and(|(map, name)| CONDITION_MAPS.contains(&map) && !name.is_empty());
    if known {
        return;
    }
    let words = match CONDITION_MAPS.iter().find(|map| **map == key) {
        Some(map) => format!("\"{key}\" needs the part that is meant, such as {map}[NAME]"),
        None => format!(
            "\"{key}\" is not an attribute, known are {}, request.auth.claims[NAME], request.headers[NAME]",
            CONDITION_KEYS.join(", ")
        ),
    };
    c.near(
        at,
        words,
        nearest(key, CONDITION_KEYS.iter().chain(CONDITION_MAPS).copied()).filter(|n| *n != key),
    );
}

pub(super) fn peer_authentication(c: &mut Checks<'_>, policy: &PeerAuthentication) {
    let spec = &policy.spec;
    if let Some(selector) = &spec.selector {
        workload_selector(c, selector);
    }
    let Some(ports) = &spec.port_level_mtls else { return };
    if spec.selector.as_ref().is_none_or(|s| s.match_labels.is_empty()) {
        c.bad("spec.portLevelMtls", "a mode per port needs a selector with labels");
    }
    if ports.is_empty() {
        c.bad("spec.portLevelMtls", "must not be empty");
    }
    for port in ports.keys() {
        c.port(format!("spec.portLevelMtls[{port}]"), i64::from(*port));
    }
}

pub(super) fn request_authentication(c: &mut Checks<'_>, policy: &RequestAuthentication) {
    let spec = &policy.spec;
    scope(c, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_deref());
    let rules = spec.jwt_rules.as_deref().unwrap_or_default();
    c.at_most("spec.jwtRules", rules, JWT_RULES_MAX);
    for (i, rule) in rules.iter().enumerate() {
        jwt_rule(c, &format!("spec.jwtRules[{i}]"), rule);
    }
}

/// A JWKS as text; it is public, so that nothing secret belongs in it.
fn key_set(c: &mut Checks<'_>, at: &str, text: &str) {
    let Ok(parsed) = serde_json::from_str::<Value>(text) else { return c.bad(at, "not JSON") };
    let Some(keys) = parsed.get("keys").and_then(Value::as_array) else {
        return c.bad(at, "no JSON object with a list of keys");
    };
    if keys.iter().any(|key| SECRET_MEMBERS.iter().any(|member| key.get(member).is_some())) {
        c.bad(at, "holds a private or shared key; publish public keys only, and replace this one");
    }
}

fn jwt_rule(c: &mut Checks<'_>, at: &str, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_none() {
        c.missing(format!("{at}.issuer"));
    }
    if let Some(uri) = &rule.jwks_uri {
        let web = uri.starts_with("https://") || uri.starts_with("http://");
        if !web || uri.len() > URI_BYTES_MAX {
            let words = format!("\"{uri}\" is not an http or https URI of at most {URI_BYTES_MAX} bytes");
            c.bad(format!("{at}.jwksUri"), words);
        }
        if rule.jwks.is_some() {
            c.bad(format!("{at}.jwks"), "not together with jwksUri");
        }
    }
    if let Some(keys) = &rule.jwks
        && rule.jwks_uri.is_none()
    {
        key_set(c, &format!("{at}.jwks"), keys);
    }
    for (field, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (i, _) in list.iter().flatten().enumerate().filter(|(_, text)| text.is_empty()) {
            c.bad(format!("{at}.{field}[{i}]"), "must not be empty");
        }
    }
    let claims = rule.space_delimited_claims.as_deref().unwrap_or_default();
    c.at_most(format!("{at}.spaceDelimitedClaims"), claims, WORD_CLAIMS_MAX);
    if let Some(timeout) = &rule.timeout {
        c.text(format!("{at}.timeout"), timeout, text::fetch_time);
    }
    for (i, header) in rule.from_headers.iter().flatten().enumerate() {
        if header.name.is_empty() {
            c.missing(format!("{at}.fromHeaders[{i}].name"));
        }
    }
    for (i, copy) in rule.output_claim_to_headers.iter().flatten().enumerate() {
        let at = format!("{at}.outputClaimToHeaders[{i}]");
        let well = copy.header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if copy.header.is_empty() || !well {
            let words = "a header has letters, digits, dashes and underscores, and at least one";
            c.bad(format!("{at}.header"), words);
        }
        if copy.claim.is_empty() {
            c.missing(format!("{at}.claim"));
        }
    }
}
