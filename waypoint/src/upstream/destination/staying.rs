//! Endpoints as marks of sessions name them.

use std::sync::Arc;
use std::time::Instant;

use ambit_route::balance::{Standing, View as _};
use ambit_route::session::{Seal, tag};

use super::{Destination, DestinationKey, Endpoint, Facts, View};

impl Destination {
    /// What stands for an endpoint in marks; none for a workload addressed by itself, which is the only one anyway.
    pub(crate) fn tag(&self, endpoint: &Endpoint, seal: &Seal<'_>) -> Option<u64> {
        match &self.key {
            DestinationKey::Service(service, port) => {
                Some(endpoint.tag(|| tag((service, *port), &endpoint.workload.uid, seal.mac)))
            }
            DestinationKey::Workload(..) => None,
        }
    }

    /// The endpoint of a tag in `view`, a view of this destination, unless it is left out for its failures or has been
    /// tried before.
    pub(crate) fn staying(
        &self,
        view: &View,
        wanted: u64,
        seal: &Seal<'_>,
        tried: &[Arc<Endpoint>],
        now: Instant,
    ) -> Option<usize> {
        let at = view.endpoints.iter().position(|endpoint| self.tag(endpoint, seal) == Some(wanted))?;
        let is_ready = Facts { view, tried, now }.standing(at) == Standing::Ready;
        is_ready.then_some(at)
    }
}
