//! GatewayClass, Gateway, ReferenceGrant.

use std::collections::BTreeSet;

use ambit_types::written::{AllowedRoutes, Gateway, GatewayClass, Grant, LabelSelector, Listener};

use super::{Checks, text};

/// Group of the Gateway API's own kinds.
pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

const LISTENERS_MAX: usize = 64;
const KINDS_MAX: usize = 8;
const GRANTS_MAX: usize = 16;
const PROTOCOLS: &[&str] = &["HBONE", "HTTP", "HTTPS", "TLS", "TCP", "UDP"];
const ROUTE_KINDS: &[&str] = &["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

pub(super) fn gateway_class(c: &mut Checks<'_>, class: &GatewayClass) {
    let name = &class.controller_name;
    if name.is_empty() {
        c.missing("spec.controllerName");
    } else if !name.contains('/') || text::qualified_name(name).is_err() {
        c.bad("spec.controllerName", format!("\"{name}\" is no name of a controller, which is DOMAIN/NAME"));
    }
}

pub(super) fn gateway(c: &mut Checks<'_>, gateway: &Gateway) {
    if gateway.gateway_class_name.is_empty() {
        c.missing("spec.gatewayClassName");
    } else {
        c.text("spec.gatewayClassName", &gateway.gateway_class_name, text::dns_subdomain);
    }
    if gateway.listeners.is_empty() {
        c.bad("spec.listeners", "a gateway needs at least one listener");
    }
    c.at_most("spec.listeners", &gateway.listeners, LISTENERS_MAX);
    let mut names = BTreeSet::new();
    for (i, one) in gateway.listeners.iter().enumerate() {
        let at = format!("spec.listeners[{i}]");
        listener(c, &at, one);
        if !one.name.is_empty() {
            c.unique(format!("{at}.name"), &one.name, &mut names);
        }
    }
    for (i, address) in gateway.addresses.iter().enumerate() {
        let at = format!("spec.addresses[{i}]");
        match address.r#type.as_deref().unwrap_or("IPAddress") {
            "IPAddress" if !address.value.is_empty() => _ = c.ip(format!("{at}.value"), &address.value),
            "Hostname" => c.text(format!("{at}.value"), &address.value, text::host_name),
            "IPAddress" => {}
            other => c.known_or_newer(format!("{at}.type"), other, &["IPAddress", "Hostname"]),
        }
    }
    if let Some(infrastructure) = &gateway.infrastructure {
        c.labels("spec.infrastructure.labels", &infrastructure.labels);
        for key in infrastructure.annotations.keys() {
            c.text(format!("spec.infrastructure.annotations[{key}]"), key, text::qualified_name);
        }
    }
}

fn listener(c: &mut Checks<'_>, at: &str, listener: &Listener) {
    if listener.name.is_empty() {
        c.missing(format!("{at}.name"));
    } else {
        c.text(format!("{at}.name"), &listener.name, text::dns_subdomain);
    }
    c.port(format!("{at}.port"), listener.port);
    match listener.protocol.as_str() {
        "" => c.missing(format!("{at}.protocol")),
        // Protocols of an implementation carry its domain.
        own if own.contains('/') => c.text(format!("{at}.protocol"), own, text::qualified_name),
        other => c.one_of(format!("{at}.protocol"), other, PROTOCOLS),
    }
    if let Some(hostname) = &listener.hostname {
        c.text(format!("{at}.hostname"), hostname, text::host_name);
    }
    if let Some(tls) = &listener.tls {
        c.optional_one_of(format!("{at}.tls.mode"), tls.mode.as_ref(), &["Terminate", "Passthrough"]);
    }
    if let Some(allowed) = &listener.allowed_routes {
        allowed_routes(c, &format!("{at}.allowedRoutes"), allowed);
    }
}

fn allowed_routes(c: &mut Checks<'_>, at: &str, allowed: &AllowedRoutes) {
    c.at_most(format!("{at}.kinds"), &allowed.kinds, KINDS_MAX);
    for (i, kind) in allowed.kinds.iter().enumerate() {
        if kind.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP) {
            c.one_of(format!("{at}.kinds[{i}].kind"), &kind.kind, ROUTE_KINDS);
        }
    }
    let Some(namespaces) = &allowed.namespaces else { return };
    let at = format!("{at}.namespaces");
    c.optional_one_of(format!("{at}.from"), namespaces.from.as_ref(), &["All", "Same", "Selector", "None"]);
    let by_labels = namespaces.from.as_deref() == Some("Selector");
    match &namespaces.selector {
        Some(selector) if by_labels => label_selector(c, &format!("{at}.selector"), selector),
        Some(_) => c.bad(format!("{at}.selector"), "counts only with from: Selector"),
        None if by_labels => c.missing(format!("{at}.selector")),
        None => {}
    }
}

fn label_selector(c: &mut Checks<'_>, at: &str, selector: &LabelSelector) {
    c.labels(&format!("{at}.matchLabels"), &selector.match_labels);
    for (i, one) in selector.match_expressions.iter().enumerate() {
        let at = format!("{at}.matchExpressions[{i}]");
        c.text(format!("{at}.key"), &one.key, text::qualified_name);
        c.one_of(format!("{at}.operator"), &one.operator, &["In", "NotIn", "Exists", "DoesNotExist"]);
        match (one.operator.as_str(), one.values.is_empty()) {
            ("In" | "NotIn", true) => c.bad(format!("{at}.values"), "In and NotIn need values"),
            ("Exists" | "DoesNotExist", false) => {
                c.bad(format!("{at}.values"), "Exists and DoesNotExist have no values");
            }
            _ => {}
        }
    }
}

pub(super) fn grant(c: &mut Checks<'_>, grant: &Grant) {
    for (field, count) in [("spec.from", grant.from.len()), ("spec.to", grant.to.len())] {
        if count == 0 {
            c.bad(field, "must not be empty: nothing would be granted");
        }
    }
    c.at_most("spec.from", &grant.from, GRANTS_MAX);
    c.at_most("spec.to", &grant.to, GRANTS_MAX);
    for (i, from) in grant.from.iter().enumerate() {
        let at = format!("spec.from[{i}]");
        if from.group == GATEWAY_GROUP {
            let kinds: Vec<&str> = ROUTE_KINDS.iter().copied().chain(["Gateway"]).collect();
            c.one_of(format!("{at}.kind"), &from.kind, &kinds);
        } else if ROUTE_KINDS.contains(&from.kind.as_str()) {
            let words = format!("\"{}\" is not the group of {}", from.group, from.kind);
            c.near(format!("{at}.group"), words, Some(GATEWAY_GROUP));
        }
        match from.namespace.as_str() {
            "" => c.missing(format!("{at}.namespace")),
            name => c.text(format!("{at}.namespace"), name, text::dns_label),
        }
    }
    for (i, to) in grant.to.iter().enumerate() {
        let at = format!("spec.to[{i}]");
        if to.group.is_empty() {
            c.one_of(format!("{at}.kind"), &to.kind, &["Service", "Secret", "ConfigMap"]);
        }
    }
}
