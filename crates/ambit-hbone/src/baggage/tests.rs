//! What is sent is read back; what is hostile is dropped.

use ambit_types::Workload;

use super::{Baggage, encode};

#[test]
fn a_workload_is_described_in_order() {
    let mut workload = Workload::new("c//Pod/shop/cart-1", "shop", "cart-1");
    workload.workload_name = "cart".into();
    workload.canonical_name = "cart".into();
    workload.canonical_revision = "v1".into();
    workload.locality.region = "r".into();
    let text = encode(&workload);
    assert_eq!(
        text,
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,\
         service.name=cart,service.version=v1,cloud.region=r"
    );
    let read = Baggage::parse(&text);
    assert_eq!((&*read.namespace, &*read.workload_name, &*read.region), ("shop", "cart", "r"));
}

#[test]
fn baggage_is_read_as_the_specification_says() {
    // G18: spaces, properties, percent-encoding and `=` in values.
    let read = Baggage::parse(" k8s.namespace.name = a%20b ;p=1 , service.name=x=y,,=,nonsense");
    assert_eq!((&*read.namespace, &*read.service_name), ("a b", "x=y"));
    let read = Baggage::parse("service.name=a%0d%0ab");
    assert_eq!(&*read.service_name, "");
    let read = Baggage::parse(&format!("service.name={}", "é".repeat(4000)));
    assert_eq!(&*read.service_name, "");
}
