//! Services: their addresses and endpoints in the objects, and what each node's network does about them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::nodes::{labels_of, merge};
use super::owner::Owner;
use crate::error::LabError;
use crate::schedule::{ObjectName, Problem, endpoints, services};
use crate::store::{Kind, ObjectKey, Snapshot};

/// Gives Services their addresses and endpoints; what cannot be done is returned.
pub(super) fn describe(owner: &Owner) -> Result<Vec<Problem>, LabError> {
    let families = owner.home.config.families;
    let snapshot = owner.store.snapshot();
    let (assigned, problems) = services::assign(&snapshot.typed::<Service>(Kind::Service), families);
    for one in assigned {
        owner.store.change(&key(Kind::Service, &one.service), |service| {
            let spec = json!({
                "clusterIP": one.cluster_ips.first(), "clusterIPs": one.cluster_ips,
                "ipFamilies": one.ip_families, "ipFamilyPolicy": one.ip_family_policy,
            });
            merge(service, "", json!({"spec": spec}));
        })?;
    }
    let snapshot = owner.store.snapshot();
    let (services, pods) = (snapshot.typed::<Service>(Kind::Service), snapshot.typed::<Pod>(Kind::Pod));
    let wanted = endpoints::slices(&services, &pods, &zones(&snapshot), families);
    let (put, remove) = endpoints::changes(&wanted, &snapshot.typed::<EndpointSlice>(Kind::EndpointSlice));
    let mut slices = Vec::new();
    for slice in put {
        let object = serde_json::to_value(&slice).map_err(|e| LabError::Failed(e.to_string()))?;
        let kept = snapshot.find(&key(Kind::EndpointSlice, &ObjectName::of(&slice.metadata))).cloned();
        slices.push(with_identity(object, kept.as_ref()));
    }
    owner.store.put(&slices)?;
    for name in remove {
        owner.store.remove(&key(Kind::EndpointSlice, &name))?;
    }
    Ok(problems)
}

/// Keeps uid and time of the object that is replaced.
fn with_identity(mut object: Value, old: Option<&Value>) -> Value {
    for field in ["uid", "creationTimestamp"] {
        if let Some(kept) = old.and_then(|o| o.pointer(&format!("/metadata/{field}"))) {
            merge(&mut object, "/metadata", json!({field: kept}));
        }
    }
    object
}

fn zones(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let zone = |(key, node): (&ObjectKey, &Value)| Some((key.name.clone(), labels_of(node).remove(endpoints::ZONE_LABEL)?));
    snapshot.of_kind(Kind::Node).filter_map(zone).collect()
}

fn key(kind: Kind, name: &ObjectName) -> ObjectKey {
    ObjectKey::new(kind, Some(&name.namespace), &name.name)
}
