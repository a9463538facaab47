//! What objects have in common is held once.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_types::{Str, Uid, Workload};

use super::{index, labels, pod, put_pod, put_service, service};
use crate::input::*;

#[test]
fn pods_share_what_they_have_in_common_whatever_stands_between_them() {
    let between = Pod { labels: labels(&[("app", "web")]), probe_ports: vec![1], ..pod("b") };
    let index = index([put_service(service("cart")), put_pod(pod("a")), put_pod(between), put_pod(pod("c"))]);
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| index.workloads()[&Uid::from(format!("Kubernetes//Pod/shop/{name}"))].clone());
    let settings = |of: &Arc<Workload>| of.settings.clone().expect("a pod has some");
    assert!(Arc::ptr_eq(&settings(&a), &settings(&c)) && !Arc::ptr_eq(&settings(&a), &settings(&b)));
    let backed = |of: &Arc<Workload>| of.services.keys().map(std::ptr::from_ref).collect::<Vec<_>>();
    assert_eq!((backed(&a).len(), backed(&b).len()), (1, 0));
    assert_eq!(backed(&a), backed(&c), "the same memory");
    let label = |name: &str| {
        let pod = index.inputs.pods.named(&Name::new("shop", name)).expect("it was put in");
        pod.labels.iter().map(|(key, _)| std::ptr::from_ref(key)).collect::<Vec<_>>()
    };
    assert_eq!(label("a"), label("c"), "the same memory");
    assert_ne!(label("a"), label("b"));
    assert!(index.uids.is_empty(), "the uid of a pod is not kept beside its workload");
}

#[test]
fn a_slice_shares_the_names_of_pods_that_come_with_it() {
    let target = |name: &str, uid: &str| SliceEndpoint {
        address: IpAddr::from([10, 244, 1, 5]),
        ready: true,
        pod: Some(TargetRef { name: Name::new("shop", name), uid: Str::from(uid) }),
    };
    let name = Name::new("shop", "cart-1");
    let slice = EndpointSlice {
        name: name.clone(),
        service: Str::from("cart"),
        ports: Vec::new(),
        endpoints: vec![target("a", "uid-1"), target("b", "uid-2"), target("gone", "uid-1")],
    };
    let slice = Event::Put(Object::EndpointSlice(slice));
    let index = index([slice, put_pod(pod("a")), put_pod(pod("b"))]);
    let held = index.inputs.slices.named(&name).expect("it was put in");
    let shared = |number: usize, name: &str| {
        let (target, pod) = (held.endpoints[number].pod.as_ref(), Name::new("shop", name));
        let (target, pod) = (target.expect("a pod"), index.inputs.pods.named(&pod).expect("it was put in"));
        [Arc::ptr_eq(&target.name.name, &pod.name.name), Arc::ptr_eq(&target.uid, &pod.uid)]
    };
    assert_eq!([shared(0, "a"), shared(1, "b"), shared(2, "a")], [[true, true], [true, false], [false; 2]]);
    let uids: Vec<&str> = held.endpoints.iter().map(|one| &*one.pod.as_ref().expect("a pod").uid).collect();
    assert_eq!(uids, ["uid-1", "uid-2", "uid-1"], "nothing else of it differs");
    let slice = held.clone();
    let mut index = index;
    index.apply([put_pod(Pod { ready: false, ..pod("a") }), Event::Put(Object::EndpointSlice(slice))]);
    let (held, pod) = (index.inputs.slices.named(&name), index.inputs.pods.named(&Name::new("shop", "a")));
    let target = held.and_then(|slice| slice.endpoints[0].pod.as_ref()).expect("a pod");
    let pod = pod.filter(|pod| !pod.ready).expect("it was put in");
    assert!(Arc::ptr_eq(&target.name.name, &pod.name.name), "still, when the pod has changed");
}
