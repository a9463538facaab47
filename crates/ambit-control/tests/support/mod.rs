//! Manifests through the reader and the control plane, without a program between them.
//!
//! Objects are reduced as a source of objects has to reduce them; of kinds that matter to workloads only, no more is
//! read than these tests need.

use ambit_control::input::{
    Event, Gateway, GatewayClass, HttpPolicy, Labels, MeshConfig, Name, Namespace, Object, ReferenceGrant,
    RequestAuthentication, Route, RouteSpec, Service, ServicePort, Target, TargetPort, TrafficPolicy,
    Transport,
};
use ambit_control::{Index, Settings};
use ambit_manifest::gateway::{GatewayObject, Resource};
use ambit_manifest::{Located, Object as Written, istio, mesh};
use ambit_types::Str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Reads manifests, all of which must be right, and puts them into a new index.
pub(crate) fn index(manifests: &str) -> Index {
    let parsed = ambit_manifest::parse("given.yaml", manifests);
    let said: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert!(said.is_empty(), "{}\n{manifests}", said.join("\n"));
    let mut index = Index::new(Settings::default());
    index.apply(parsed.objects.iter().filter_map(reduce).map(Event::Put));
    index
}

/// An object as the index reads it; nothing of kinds that these tests do not use.
pub(crate) fn reduce(object: &Located) -> Option<Object> {
    let name = Name::new(object.key.namespace.as_deref().unwrap_or_default(), object.key.name.as_str());
    match &*object.object {
        Written::Namespace(o) => Some(Object::Namespace(Namespace {
            name: name.name,
            labels: labels(&o.metadata.labels),
            annotations: labels(&o.metadata.annotations),
        })),
        Written::Service(_) => Some(Object::Service(Box::new(service(object, name)))),
        Written::AuthorizationPolicy(o) => Some(Object::HttpPolicy(Box::new(http_policy(name, o)))),
        Written::RequestAuthentication(o) => {
            let rules = o.spec.jwt_rules.iter().flatten().map(again).collect();
            let targets = targets(&o.spec.target_ref, &o.spec.target_refs);
            let made = RequestAuthentication { name, generation: 0, targets, rules };
            Some(Object::RequestAuthentication(Box::new(made)))
        }
        Written::GatewayApi(o) => Some(gateway_object(name, o)),
        Written::ConfigMap(_) => {
            let providers = mesh::extension_providers(object)?.expect("a document that can be read");
            let providers = providers.into_iter().map(|one| (one.at, one.name, one.spec));
            Some(Object::MeshConfig(Box::new(MeshConfig::new(name, providers))))
        }
        _ => None,
    }
}

fn gateway_object(name: Name, object: &GatewayObject) -> Object {
    match object {
        GatewayObject::GatewayClass(o) => Object::GatewayClass(GatewayClass {
            name: name.name,
            labels: labels(&o.metadata.labels),
            controller: o.spec.controller_name.as_str().into(),
        }),
        GatewayObject::Gateway(o) => {
            let addresses = o.status.as_ref().and_then(|status| status.get("addresses")?.as_array());
            Object::Gateway(Box::new(Gateway {
                name,
                uid: Str::from(""),
                generation: generation(o),
                labels: labels(&o.metadata.labels),
                annotations: Labels::new(),
                spec: o.spec.clone(),
                has_address: addresses.is_some_and(|list| !list.is_empty()),
            }))
        }
        GatewayObject::HttpRoute(o) => route(name, o, RouteSpec::Http),
        GatewayObject::GrpcRoute(o) => route(name, o, RouteSpec::Grpc),
        GatewayObject::TlsRoute(o) => route(name, o, RouteSpec::Tls),
        GatewayObject::TcpRoute(o) => route(name, o, RouteSpec::Tcp),
        GatewayObject::ReferenceGrant(o) => {
            Object::ReferenceGrant(ReferenceGrant { name, spec: o.spec.clone() })
        }
        GatewayObject::TrafficPolicy(o) => Object::TrafficPolicy(Box::new(TrafficPolicy {
            name,
            created: created(o),
            generation: generation(o),
            spec: o.spec.clone(),
        })),
        GatewayObject::EgressPolicy(_) => panic!("{name}: waypoints know nothing of it"),
        GatewayObject::VirtualService(o) => {
            let (made, wrong) = ambit_control::import::virtual_service(&name.namespace, &o.spec);
            assert!(wrong.is_empty(), "{wrong:?}");
            let (created, generation) = (created(o), generation(o));
            Object::Route(Box::new(Route { name, created, generation, spec: RouteSpec::Virtual(made) }))
        }
    }
}

fn route<S: Default + Clone>(name: Name, of: &Resource<S>, spec: fn(S) -> RouteSpec) -> Object {
    let (created, generation) = (created(of), generation(of));
    Object::Route(Box::new(Route { name, created, generation, spec: spec(of.spec.clone()) }))
}

fn created<S: Default>(of: &Resource<S>) -> u64 {
    let stamp = of.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    stamp.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default()
}

fn generation<S: Default>(of: &Resource<S>) -> i64 {
    of.metadata.generation.unwrap_or_default()
}

fn http_policy(name: Name, of: &istio::AuthorizationPolicy) -> HttpPolicy {
    let mut spec = of.spec.clone();
    let targets = targets(&spec.target_ref.take(), &spec.target_refs.take());
    let dry_run =
        of.metadata.annotations.iter().flatten().any(|(k, v)| k == "istio.io/dry-run" && v == "true");
    HttpPolicy { name, generation: 0, targets, dry_run, spec: again(&spec) }
}

/// The same body in the words of the crate that gives it meaning.
fn again<T: DeserializeOwned>(of: &impl Serialize) -> T {
    let value = serde_json::to_value(of).expect("a body has a JSON form");
    serde_json::from_value(value).expect("both have the names of the manifest")
}

fn targets(one: &Option<istio::TargetReference>, more: &Option<Vec<istio::TargetReference>>) -> Vec<Target> {
    let all = one.iter().chain(more.iter().flatten());
    let target = |of: &istio::TargetReference| Target {
        group: of.group.as_str().into(),
        kind: of.kind.as_str().into(),
        name: of.name.as_str().into(),
    };
    all.map(target).collect()
}

fn labels(map: &Option<BTreeMap<String, String>>) -> Labels {
    map.iter().flatten().map(|(k, v)| (Str::from(k.as_str()), Str::from(v.as_str()))).collect()
}

fn service(object: &Located, name: Name) -> Service {
    let metadata = object.object.metadata();
    let spec = &object.value["spec"];
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().map(Str::from);
    let port = |value: &serde_json::Value| {
        let number = value["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        ServicePort {
            name: text(value, "name").unwrap_or_default(),
            port: number,
            target: TargetPort::Number(number),
            transport: if value["protocol"] == "UDP" { Transport::Udp } else { Transport::Tcp },
            app_protocol: text(value, "appProtocol"),
        }
    };
    Service {
        name,
        created: 0,
        labels: labels(&metadata.labels),
        annotations: labels(&metadata.annotations),
        selector: Labels::new(),
        cluster_ips: spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok()).into_iter().collect(),
        ports: spec["ports"].as_array().into_iter().flatten().map(port).collect(),
        external_name: spec["type"] == "ExternalName",
        node_local: false,
        traffic_distribution: None,
        publish_not_ready: false,
        ip_families_v6: Vec::new(),
    }
}
