//! Endpoints that are not ready, of a service that takes them from now on.

use ambit_types::service::HealthPolicy;
use ambit_types::workload::Health;

use super::*;

/// A service, and an endpoint of it that is not ready and whose name sorts before the service's.
fn unready(all: bool) -> Delta {
    let mut service = Service::new("ns", "s", "s.example");
    service.load_balancing.health = if all { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    let endpoint = |uid: &str, of: &str| {
        let mut pod = Workload::new(uid, "ns", uid);
        pod.health = Health::Unhealthy;
        pod.services = [(ServiceKey::new("ns", of), vec![])].into();
        Address::from(pod)
    };
    let addresses =
        vec![service.into(), endpoint("Kubernetes//Pod/ns/p", "s.example"), endpoint("other", "o.example")];
    Delta { addresses, ..Delta::default() }
}

#[test]
fn a_service_that_takes_unready_endpoints_from_now_on_brings_them_along() {
    // G12: other proxies dropped them when they came, and have nothing to take up again.
    let mut rig = Rig::new(unready(false));
    assert_eq!(rig.subscribe(&[]), ["Authorization", "Address +Kubernetes//Pod/ns/p +ns/s.example +other"]);
    let response = rig.publish(2, unready(true));
    // Behind its service: a proxy applies them in order.
    assert_eq!(rig.settle(response), ["Address +ns/s.example +Kubernetes//Pod/ns/p"]);
    assert_eq!(rig.publish(3, unready(true)), None, "once is enough");
    let response = rig.publish(4, unready(false));
    assert_eq!(rig.settle(response), ["Address +ns/s.example"], "the way back needs nothing");
}

#[test]
fn a_client_that_missed_the_change_gets_the_unready_endpoints_when_it_comes_back() {
    let older = Rig::new(unready(false));
    let held = |rig: &Rig, name: &str| rig.resources.version(Kind::Address, name).unwrap().to_owned();
    let (service, pod) = (held(&older, "ns/s.example"), held(&older, "Kubernetes//Pod/ns/p"));
    let other = held(&older, "other");
    let declared = [("ns/s.example", &*service), ("Kubernetes//Pod/ns/p", &*pod), ("other", &*other)];
    let mut rig = Rig::new(unready(true));
    let came = rig.subscribe(&[(Kind::Address, &declared)]);
    assert_eq!(came, ["Authorization", "Address +ns/s.example +Kubernetes//Pod/ns/p"]);
    // The same for one that asks for some names only.
    let mut rig = Rig::new(unready(true));
    let mut request = names(&[WILDCARD], &[WILDCARD]);
    request.initial_resource_versions =
        declared[..2].iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    rig.send(request);
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    assert_eq!(rig.settle(response), ["Authorization", "Address +ns/s.example +Kubernetes//Pod/ns/p"]);
}
