//! The resources in force as discovery sent them, with names and versions. Pure.
//!
//! Kept as bytes beside the world that was made of them: what a newer control plane says and this version does not
//! read is not lost, and a start reads them as if they had just arrived. A resource that was refused is kept too,
//! because a policy that cannot be used denies.

use std::collections::{BTreeMap, BTreeSet};

use ambit_xds::Kind;
use ambit_xds::any::Any;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use bytes::Bytes;

#[cfg(test)]
mod tests;

/// Everything that is in force.
#[derive(Debug, Default)]
pub struct Archive {
    kinds: BTreeMap<Kind, BTreeMap<String, Kept>>,
}

/// What is held under a name.
#[derive(Debug, Default)]
struct Kept {
    good: Option<Resource>,
    /// Newer than the good one, and of no use.
    refused: Option<Resource>,
}

impl Kept {
    /// Whether this is news.
    fn accept(&mut self, resource: Resource) -> bool {
        if self.refused.is_none() && self.good.as_ref() == Some(&resource) {
            return false;
        }
        *self = Self { good: Some(own(resource)), refused: None };
        true
    }

    /// Whether this is news.
    fn refuse(&mut self, resource: Resource) -> bool {
        if self.refused.as_ref() == Some(&resource) {
            return false;
        }
        self.refused = Some(own(resource));
        true
    }
}

impl Archive {
    /// Takes a response that is being applied: which of its resources were refused, and which names are gone.
    /// Whether anything is other than before.
    pub fn absorb(
        &mut self,
        response: DeltaDiscoveryResponse,
        refused: &BTreeSet<&str>,
        removed: &[String],
    ) -> bool {
        let Some(kind) = Kind::of(&response.type_url) else { return false };
        // That a kind has arrived is worth keeping, even if there is nothing of it.
        let mut changed = !self.kinds.contains_key(&kind);
        let held = self.kinds.entry(kind).or_default();
        for name in removed {
            changed |= held.remove(name).is_some();
        }
        for resource in response.resources {
            let is_refused = refused.contains(resource.name.as_str());
            let kept = held.entry(resource.name.clone()).or_default();
            changed |= if is_refused { kept.refuse(resource) } else { kept.accept(resource) };
        }
        changed
    }

    /// Responses that lead to the same from nothing: of each kind what is good, then what was refused.
    pub fn responses(&self) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        for (kind, held) in &self.kinds {
            let good: Vec<Resource> = held.values().filter_map(|kept| kept.good.clone()).collect();
            let refused: Vec<Resource> = held.values().filter_map(|kept| kept.refused.clone()).collect();
            // The first one of a kind also says that it has arrived, even if there is none.
            responses.push(response(*kind, good));
            if !refused.is_empty() {
                responses.push(response(*kind, refused));
            }
        }
        responses
    }
}

fn response(kind: Kind, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: kind.url().to_owned(), resources, ..DeltaDiscoveryResponse::default() }
}

/// The resource with bytes of its own: a slice would keep the whole response it came in.
fn own(resource: Resource) -> Resource {
    let any = resource
        .resource
        .map(|any| Any { type_url: any.type_url, value: Bytes::copy_from_slice(&any.value) });
    Resource { resource: any, ..resource }
}
