//! EgressPolicy: texts become ranges and ports.

use std::net::IpAddr;

use ambit_control::input::{EgressPolicy, Labels};
use ambit_manifest::gateway::Resource;
use ambit_types::{EgressRule, written};
use ipnet::IpNet;

use super::{Reader, generation, words};

impl Reader<'_> {
    pub(super) fn egress_policy(&mut self, from: &Resource<written::EgressPolicy>) -> EgressPolicy {
        let selector = from.spec.selector.as_ref();
        let mut rules = Vec::with_capacity(from.spec.allow.len());
        for (i, allow) in from.spec.allow.iter().enumerate() {
            rules.push(self.egress_rule(&format!("spec.allow[{i}]"), allow));
        }
        EgressPolicy {
            name: self.name(),
            generation: generation(&from.metadata),
            selector: selector.map_or_else(Labels::new, |of| words(Some(&of.match_labels))),
            rules,
        }
    }

    fn egress_rule(&mut self, at: &str, from: &written::EgressAllow) -> EgressRule {
        let mut rule = EgressRule::default();
        for (i, cidr) in from.cidrs.iter().enumerate() {
            match range(cidr) {
                Some(range) => rule.cidrs.push(range),
                None => self.bad(
                    format!("{at}.cidrs[{i}]"),
                    format!("{cidr:?} is neither an IP address nor a CIDR, or is IPv4 written as IPv6"),
                ),
            }
        }
        for (i, port) in from.ports.iter().enumerate() {
            rule.ports.push(self.port(format!("{at}.ports[{i}]"), *port));
        }
        rule
    }
}

/// A range that destinations can be compared with: they never are IPv4-mapped.
fn range(text: &str) -> Option<IpNet> {
    let range = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let is_mapped = range.network().is_ipv6() && range.network().to_canonical().is_ipv4();
    (!is_mapped).then_some(range)
}
