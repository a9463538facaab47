//! What the cluster's own controllers have not done yet about the objects as they are. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::address::Families;
use crate::schedule::ObjectName;
use crate::schedule::endpoints::{self, SERVICE_LABEL};
use crate::store::Snapshot;

/// Deployments whose pods are not all there, new and ready.
pub fn unfinished(objects: &Snapshot) -> BTreeSet<ObjectName> {
    let deployments = objects.deployments();
    let unfinished = deployments.iter().filter(|deployment| !is_finished(deployment));
    unfinished.map(|deployment| ObjectName::of(&deployment.metadata)).collect()
}

fn is_finished(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return false };
    let seen = status.observed_generation >= deployment.metadata.generation;
    let count = |number: Option<i32>| number.unwrap_or(0);
    seen && count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
}

/// An endpoint as traffic sees it: where it is, and whether it takes new connections.
type Endpoints = BTreeSet<(String, bool)>;

/// Services whose EndpointSlices are not those that their pods ask for, a sentence each.
pub fn stale_endpoints(objects: &Snapshot, families: Families) -> Vec<String> {
    let (services, pods) = (objects.services(), objects.pods());
    let wanted = by_service(&endpoints::slices(&services, &pods, &BTreeMap::new(), families), false);
    let found = by_service(&objects.slices(), true);
    let none = Endpoints::new();
    let stale = wanted.iter().filter(|(service, wanted)| found.get(*service).unwrap_or(&none) != *wanted);
    stale
        .map(|(service, _)| format!("the endpoints of Service {service} are not those of its pods yet"))
        .collect()
}

fn by_service(slices: &[EndpointSlice], only_of_controller: bool) -> BTreeMap<ObjectName, Endpoints> {
    let mut all: BTreeMap<ObjectName, Endpoints> = BTreeMap::new();
    for slice in slices {
        let Some(labels) = &slice.metadata.labels else { continue };
        let owned = labels.get(endpoints::OWNER_LABEL).is_some_and(|owner| owner == endpoints::OWNER);
        let Some(service) = labels.get(SERVICE_LABEL).filter(|_| owned || !only_of_controller) else {
            continue;
        };
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let place = all.entry(ObjectName { namespace, name: service.clone() }).or_default();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            place.extend(endpoint.addresses.iter().map(|address| (address.clone(), ready)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(status: Value) -> Deployment {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web", "generation": 2},
            "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status,
        });
        serde_json::from_value(object).expect("a Deployment")
    }

    #[test]
    fn a_deployment_is_finished_when_every_pod_is_new_and_available() {
        let rows = [
            (json!({}), false),
            (
                json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                false,
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
                false,
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
                false,
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                true,
            ),
        ];
        for (status, want) in rows {
            assert_eq!(is_finished(&deployment(status.clone())), want, "row {status}");
        }
    }

    #[test]
    fn slices_of_others_do_not_stand_for_the_controllers() {
        let slice = |owner: &str, ready: bool| -> EndpointSlice {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "web-1", "labels": {
                    "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": owner,
                }},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": ready}}],
            });
            serde_json::from_value(object).expect("an EndpointSlice")
        };
        let web = ObjectName { namespace: "shop".to_owned(), name: "web".to_owned() };
        let got = by_service(&[slice(endpoints::OWNER, false), slice("somebody", true)], true);
        assert_eq!(got, BTreeMap::from([(web, Endpoints::from([("10.244.1.2".to_owned(), false)]))]));
    }
}
