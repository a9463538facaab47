//! Objects of the Gateway API and what Ambit adds to them. Their bodies mean nothing here and are carried over whole; of
//! Istio's VirtualService the import says what it means in their words, and what it cannot take.

use ambit_control::import;
use ambit_control::input::{Gateway, GatewayClass, Object, ReferenceGrant, Route, RouteSpec, TrafficPolicy};
use ambit_manifest::gateway::{GatewayObject, Resource};
use ambit_types::{Str, written};
use serde_json::Value;

use super::{Reader, chosen, created, generation, text, words};

/// Annotations of a gateway that say how its waypoint is made.
const GATEWAY_ANNOTATIONS: &[&str] = &["ambit.internal/replicas", "ambit.internal/restarted"];

impl Reader<'_> {
    pub(super) fn gateway_object(&mut self, from: &GatewayObject) -> Object {
        match from {
            GatewayObject::GatewayClass(o) => Object::GatewayClass(GatewayClass {
                name: self.name().name,
                labels: words(o.metadata.labels.as_ref()),
                controller: Str::from(o.spec.controller_name.as_str()),
            }),
            GatewayObject::Gateway(o) => Object::Gateway(Box::new(self.gateway(o))),
            GatewayObject::HttpRoute(o) => self.route(o, RouteSpec::Http),
            GatewayObject::GrpcRoute(o) => self.route(o, RouteSpec::Grpc),
            GatewayObject::TlsRoute(o) => self.route(o, RouteSpec::Tls),
            GatewayObject::TcpRoute(o) => self.route(o, RouteSpec::Tcp),
            GatewayObject::ReferenceGrant(o) => {
                Object::ReferenceGrant(ReferenceGrant { name: self.name(), spec: o.spec.clone() })
            }
            GatewayObject::TrafficPolicy(o) => Object::TrafficPolicy(Box::new(TrafficPolicy {
                name: self.name(),
                created: created(&o.metadata),
                generation: generation(&o.metadata),
                spec: o.spec.clone(),
            })),
            GatewayObject::EgressPolicy(o) => Object::EgressPolicy(self.egress_policy(o)),
            GatewayObject::VirtualService(o) => self.virtual_service(o),
        }
    }

    fn gateway(&self, from: &Resource<written::Gateway>) -> Gateway {
        // Whoever makes the waypoint writes its addresses there once it can be reached.
        let addresses = from.status.as_ref().and_then(|s| s.get("addresses")).and_then(Value::as_array);
        Gateway {
            name: self.name(),
            uid: text(from.metadata.uid.as_deref()),
            generation: generation(&from.metadata),
            labels: words(from.metadata.labels.as_ref()),
            annotations: chosen(from.metadata.annotations.as_ref(), GATEWAY_ANNOTATIONS),
            spec: from.spec.clone(),
            has_address: addresses.is_some_and(|list| !list.is_empty()),
        }
    }

    fn virtual_service(&mut self, from: &Resource<written::VirtualService>) -> Object {
        let name = self.name();
        let (spec, wrong) = import::virtual_service(&name.namespace, &from.spec);
        for one in wrong {
            self.bad(one.path, one.words);
        }
        Object::Route(Box::new(Route {
            name,
            created: created(&from.metadata),
            generation: generation(&from.metadata),
            spec: RouteSpec::Virtual(spec),
        }))
    }

    fn route<S: Default + Clone>(&self, from: &Resource<S>, spec: fn(S) -> RouteSpec) -> Object {
        Object::Route(Box::new(Route {
            name: self.name(),
            created: created(&from.metadata),
            generation: generation(&from.metadata),
            spec: spec(from.spec.clone()),
        }))
    }
}
