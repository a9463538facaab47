//! Where a workload runs.

use crate::Str;

/// Region, zone and subzone of a node; empty parts are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Str,
    /// `topology.kubernetes.io/zone`.
    pub zone: Str,
    /// `topology.istio.io/subzone`.
    pub subzone: Str,
}
