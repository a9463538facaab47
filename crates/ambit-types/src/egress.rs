//! Where a workload may connect outside the mesh: what the EgressPolicies that select it add up to.
//!
//! About destinations that discovery does not know. What it knows, a ServiceEntry included, is not judged by this.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::PolicyKey;

/// What the policies that select a workload allow together; without a rule nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Egress {
    /// The policy to name in a refusal: the first of them by name.
    pub policy: PolicyKey,
    /// Rules of all of them; one that admits is enough.
    pub rules: Vec<EgressRule>,
}

/// Destinations that are allowed: any of the ranges at any of the ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EgressRule {
    /// Ranges of addresses; none means every address.
    pub cidrs: Vec<IpNet>,
    /// Ports; none means every port.
    pub ports: Vec<u16>,
}

impl Egress {
    /// Whether a rule admits a destination, whose address must not be IPv4-mapped.
    pub fn admits(&self, destination: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.admits(destination))
    }

    /// Whether a rule admits some address at a port, for who does not know the address.
    pub fn may_admit(&self, port: u16) -> bool {
        let says_something = |rule: &EgressRule| !rule.cidrs.is_empty() || !rule.ports.is_empty();
        let has_port = |rule: &EgressRule| rule.ports.is_empty() || rule.ports.contains(&port);
        self.rules.iter().any(|rule| says_something(rule) && has_port(rule))
    }
}

impl EgressRule {
    /// A rule that says nothing admits nothing: it may be of a version that says it in other words.
    fn admits(&self, destination: SocketAddr) -> bool {
        let is_in = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&destination.ip()));
        match (&*self.cidrs, &*self.ports) {
            ([], []) => false,
            (cidrs, []) => is_in(cidrs),
            ([], ports) => ports.contains(&destination.port()),
            (cidrs, ports) => is_in(cidrs) && ports.contains(&destination.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_admits_its_ranges_at_its_ports() {
        let rows: [(&str, &[u16], &str, bool); 11] = [
            ("", &[], "192.0.2.10:443", false),
            ("192.0.2.0/24", &[], "192.0.2.10:443", true),
            ("192.0.2.0/24", &[], "192.0.3.10:443", false),
            ("192.0.2.0/24", &[], "[2001:db8::1]:443", false),
            ("2001:db8::/32,192.0.2.0/24", &[], "[2001:db8::1]:443", true),
            ("", &[443, 8443], "192.0.2.10:8443", true),
            ("", &[443], "192.0.2.10:80", false),
            ("192.0.2.0/24", &[443], "192.0.2.10:443", true),
            ("192.0.2.0/24", &[443], "192.0.2.10:80", false),
            ("192.0.2.0/24", &[443], "192.0.3.10:443", false),
            ("0.0.0.0/0", &[], "203.0.113.1:1", true),
        ];
        for (cidrs, ports, destination, want) in rows {
            let cidrs = cidrs.split(',').filter(|text| !text.is_empty());
            let cidrs = cidrs.map(|text| text.parse().expect("a range")).collect();
            let rule = EgressRule { cidrs, ports: ports.to_vec() };
            let told = format!("{rule:?} for {destination}");
            let (policy, rules) = (PolicyKey::new("shop", "egress"), vec![EgressRule::default(), rule]);
            let egress = Egress { policy, rules };
            let destination: SocketAddr = destination.parse().expect("an address");
            assert_eq!(egress.admits(destination), want, "{told}");
            assert!(!want || egress.may_admit(destination.port()), "{told}");
        }
    }

    #[test]
    fn without_a_rule_nothing_is_admitted() {
        let egress = Egress { policy: PolicyKey::new("shop", "egress"), rules: Vec::new() };
        assert!(!egress.admits(SocketAddr::from(([192, 0, 2, 10], 443))));
        assert!(!egress.may_admit(443));
        let rules = vec![EgressRule::default(), EgressRule { cidrs: Vec::new(), ports: vec![443] }];
        let egress = Egress { rules, ..egress };
        assert_eq!((egress.may_admit(443), egress.may_admit(80)), (true, false));
    }
}
