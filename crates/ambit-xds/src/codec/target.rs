//! What a waypoint's policy is attached to, and what it decides about a policy that cannot be read.

use ambit_types::ServiceKey;

use super::bounds::{each, encode_service, service};
use super::{Malformed, Problem};
use crate::proto::ambit::waypoint::v1 as wire;

/// What a policy is attached to, at the waypoint that was sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyTarget {
    /// Requests addressed to this service.
    Service(ServiceKey),
    /// Everything that goes through the waypoint.
    Waypoint,
}

impl PolicyTarget {
    /// Whether requests addressed to a service are meant.
    pub fn covers(&self, service: &ServiceKey) -> bool {
        match self {
            Self::Service(own) => own == service,
            Self::Waypoint => true,
        }
    }
}

/// Reads the targets of a policy, at least one.
pub(super) fn decode(list: &[wire::PolicyTarget]) -> Result<Vec<PolicyTarget>, Malformed> {
    use wire::policy_target::Kind;
    if list.is_empty() {
        return Err(Malformed::at("targets", Problem::Missing));
    }
    each("targets", list, |target| match &target.kind {
        Some(Kind::Service(key)) => service(Some(key)).map(PolicyTarget::Service),
        Some(Kind::Waypoint(())) => Ok(PolicyTarget::Waypoint),
        // To leave it out would leave something unprotected.
        None => Err(Malformed::at("kind", Problem::Missing)),
    })
}

pub(super) fn encode(list: &[PolicyTarget]) -> Vec<wire::PolicyTarget> {
    use wire::policy_target::Kind;
    let kind = |target: &PolicyTarget| match target {
        PolicyTarget::Service(key) => Kind::Service(encode_service(key)),
        PolicyTarget::Waypoint => Kind::Waypoint(()),
    };
    list.iter().map(|target| wire::PolicyTarget { kind: Some(kind(target)) }).collect()
}
