//! What has to be compiled anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_route::model::{Destination, Frontend};
use ambit_types::ServiceKey;

use crate::codec::PolicyTarget;

/// Something that differs from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New or changed routes of a port, for `ambit_route::Table::put`.
    Frontend(Arc<Frontend>),
    /// A port without routes, for `ambit_route::Table::remove`; see [`super::Store::lacks_routes`].
    FrontendRemoved {
        /// The service.
        service: ServiceKey,
        /// Its port.
        port: u16,
    },
    /// New or changed, for `ambit_route::Table::put_destination`.
    Destination(Arc<Destination>),
    /// As by default again, for `ambit_route::Table::remove_destination`.
    DestinationRemoved(ServiceKey),
    /// Policies of these targets: ask [`super::Store::policies_for`] again.
    Policies(BTreeSet<PolicyTarget>),
    /// Rules for tokens of these targets: ask [`super::Store::token_rules_for`] again.
    TokenRules(BTreeSet<PolicyTarget>),
    /// Other providers than before: ask [`super::Store::providers`] again.
    Providers,
}
