//! EgressPolicy, of group `ambit.internal/v1alpha1`: where pods may connect outside the mesh.

use std::collections::BTreeMap;

use super::bodies;

bodies! {
    /// The body of an `EgressPolicy`.
    EgressPolicy {
        /// Which pods of the namespace it is about; every pod if it is absent or empty.
        selector: Option<EgressSelector>,
        /// What becomes of destinations that no rule allows. `Deny`, which is also what absence means.
        default: Option<String>,
        /// What is allowed; without a rule nothing is.
        allow: Vec<EgressAllow>,
    }

    /// Which pods a policy is about.
    EgressSelector {
        /// Labels with exactly these values.
        match_labels: BTreeMap<String, String>,
    }

    /// Destinations that are allowed: any of the ranges at any of the ports. One of both is needed.
    EgressAllow {
        /// Addresses and ranges, such as `192.0.2.0/24`; absent means every address.
        cidrs: Vec<String>,
        /// Ports, 1 to 65535; absent means every port.
        ports: Vec<i64>,
    }
}
