//! EgressPolicy.

use ambit_types::written::{EgressAllow, EgressPolicy};

use super::Checks;

const RULES_MAX: usize = 32;
const CIDRS_MAX: usize = 64;
const PORTS_MAX: usize = 16;

pub(super) fn policy(c: &mut Checks<'_>, policy: &EgressPolicy) {
    if let Some(selector) = &policy.selector {
        c.labels("spec.selector.matchLabels", &selector.match_labels);
    }
    c.optional_one_of("spec.default", policy.default.as_ref(), &["Deny"]);
    c.at_most("spec.allow", &policy.allow, RULES_MAX);
    for (i, rule) in policy.allow.iter().enumerate() {
        allow(c, &format!("spec.allow[{i}]"), rule);
    }
}

fn allow(c: &mut Checks<'_>, at: &str, rule: &EgressAllow) {
    // That it allows everything would be one reading, that it allows nothing the other.
    if rule.cidrs.is_empty() && rule.ports.is_empty() {
        c.bad(at, "one of cidrs and ports is needed");
    }
    c.at_most(format!("{at}.cidrs"), &rule.cidrs, CIDRS_MAX);
    for (i, cidr) in rule.cidrs.iter().enumerate() {
        c.ip_or_cidr(format!("{at}.cidrs[{i}]"), cidr);
    }
    c.at_most(format!("{at}.ports"), &rule.ports, PORTS_MAX);
    for (i, port) in rule.ports.iter().enumerate() {
        c.port(format!("{at}.ports[{i}]"), *port);
    }
}
