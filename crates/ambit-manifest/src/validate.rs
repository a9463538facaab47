//! Whether the values of one object are what the API server would take.
//!
//! Looks at one object alone; references between objects are `set`'s affair.

mod core;
mod egress;
mod filters;
mod gateway;
mod metadata;
mod networking;
mod pod;
mod routes;
mod security;
mod text;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::gateway::GatewayObject;
use crate::kind::Kind;
use crate::nearest::{listed, nearest};
use crate::object::Object;
use crate::problem::Finding;
use crate::tree::{NodeId, Tree};

/// Everything wrong with the values of an object that has the right shape.
pub(crate) fn object(tree: &Tree, root: NodeId, kind: Kind, object: &Object) -> Vec<Finding> {
    let mut checks = Checks { tree, root, findings: Vec::new() };
    let c = &mut checks;
    metadata::check(c, kind, object.metadata());
    match object {
        Object::Namespace(_) | Object::ServiceAccount(_) => {}
        Object::GatewayApi(o) => gateway_object(c, o),
        Object::Node(o) => core::node(c, o),
        Object::ConfigMap(o) => core::config_map(c, o),
        Object::Secret(o) => core::secret(c, o),
        Object::Service(o) => core::service(c, o),
        Object::EndpointSlice(o) => core::endpoint_slice(c, o),
        Object::NetworkPolicy(o) => core::network_policy(c, o),
        Object::Deployment(o) => pod::deployment(c, o),
        Object::Pod(o) => pod::pod(c, o),
        Object::PeerAuthentication(o) => security::peer_authentication(c, o),
        Object::AuthorizationPolicy(o) => security::authorization_policy(c, o),
        Object::RequestAuthentication(o) => security::request_authentication(c, o),
        Object::ServiceEntry(o) => networking::service_entry(c, o),
        Object::WorkloadEntry(o) => networking::workload_entry(c, o),
    }
    checks.findings
}

fn gateway_object(c: &mut Checks<'_>, object: &GatewayObject) {
    match object {
        GatewayObject::GatewayClass(o) => gateway::gateway_class(c, &o.spec),
        GatewayObject::Gateway(o) => gateway::gateway(c, &o.spec),
        GatewayObject::ReferenceGrant(o) => gateway::grant(c, &o.spec),
        GatewayObject::HttpRoute(o) => routes::http(c, &o.spec),
        GatewayObject::GrpcRoute(o) => routes::grpc(c, &o.spec),
        GatewayObject::TcpRoute(o) => routes::tcp(c, &o.spec),
        GatewayObject::TlsRoute(o) => routes::tls(c, &o.spec),
        GatewayObject::TrafficPolicy(o) => traffic::policy(c, &o.spec),
        GatewayObject::EgressPolicy(o) => egress::policy(c, &o.spec),
        // What can be imported of it is found out where it is translated.
        GatewayObject::VirtualService(_) => {}
    }
}

/// Collects findings and places them by their path.
struct Checks<'t> {
    tree: &'t Tree,
    root: NodeId,
    findings: Vec<Finding>,
}

impl Checks<'_> {
    fn bad(&mut self, path: impl AsRef<str>, message: impl Into<String>) {
        self.near(path, message, None);
    }

    fn near(&mut self, path: impl AsRef<str>, message: impl Into<String>, near: Option<&str>) {
        let path = path.as_ref();
        self.findings.push(Finding::new(self.tree.locate(self.root, path), path, message).nearest(near));
    }

    fn missing(&mut self, path: impl AsRef<str>) {
        self.bad(path, "the field is missing");
    }

    /// One of a closed set of values.
    fn one_of(&mut self, path: impl AsRef<str>, value: &str, valid: &[&str]) {
        if !valid.contains(&value) {
            let words =
                format!("\"{value}\" is not a valid value, valid are {}", listed(valid.iter().copied()));
            self.near(path, words, nearest(value, valid.iter().copied()));
        }
    }

    fn optional_one_of(&mut self, path: impl AsRef<str>, value: Option<&String>, valid: &[&str]) {
        if let Some(value) = value {
            self.one_of(path, value, valid);
        }
    }

    /// One of the values known, unless it resembles none: then a newer API has it, and what uses it will refuse.
    fn known_or_newer(&mut self, path: impl AsRef<str>, value: &str, known: &[&str]) {
        if nearest(value, known.iter().copied()).is_some() || value.is_empty() {
            self.one_of(path, value, known);
        }
    }

    fn optional_known_or_newer(&mut self, path: impl AsRef<str>, value: Option<&str>, known: &[&str]) {
        if let Some(value) = value {
            self.known_or_newer(path, value, known);
        }
    }

    fn range(&mut self, path: impl AsRef<str>, value: i64, min: i64, max: i64) {
        if !(min..=max).contains(&value) {
            self.bad(path, format!("{value} is not between {min} and {max}"));
        }
    }

    /// A duration of the Gateway API (GEP-2257).
    fn duration(&mut self, path: impl AsRef<str>, value: Option<&str>) {
        if let Some(value) = value {
            self.text(path, value, text::duration);
        }
    }

    /// A duration that is not zero.
    fn positive_duration(&mut self, path: impl AsRef<str>, value: Option<&str>) {
        let Some(value) = value else { return };
        if text::duration(value).is_ok() && !value.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
            return self.bad(path, format!("\"{value}\" is no time at all"));
        }
        self.text(path, value, text::duration);
    }

    /// A text with a syntax of its own.
    fn text(&mut self, path: impl AsRef<str>, value: &str, rule: fn(&str) -> Result<(), text::Wrong>) {
        if let Err(wrong) = rule(value) {
            self.near(path, wrong.message, wrong.nearest.as_deref());
        }
    }

    fn port(&mut self, path: impl AsRef<str>, port: i64) {
        if !(1..=65535).contains(&port) {
            self.bad(path, format!("{port} is not a port, ports are 1 to 65535"));
        }
    }

    /// A port by number, or by the name of one; names are checked for their form only.
    fn port_or_name(&mut self, path: impl AsRef<str>, port: &IntOrString) {
        match port {
            IntOrString::Int(number) => self.port(path, i64::from(*number)),
            IntOrString::String(name) => self.text(path, name, text::port_name),
        }
    }

    fn ip(&mut self, path: impl AsRef<str>, value: &str) -> Option<IpAddr> {
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.bad(path, format!("\"{value}\" is not an IP address"));
        }
        parsed
    }

    fn cidr(&mut self, path: impl AsRef<str>, value: &str) -> Option<IpNet> {
        match text::cidr(value) {
            Ok(net) => Some(net),
            Err(wrong) => {
                self.near(path, wrong.message, wrong.nearest.as_deref());
                None
            }
        }
    }

    fn ip_or_cidr(&mut self, path: impl AsRef<str>, value: &str) {
        if value.contains('/') {
            self.cidr(path, value);
        } else if value.parse::<IpAddr>().is_err() {
            self.bad(path, format!("\"{value}\" is neither an IP address nor a CIDR such as 10.0.0.0/8"));
        }
    }

    /// Labels that objects carry or that are asked for.
    fn labels<'l>(&mut self, path: &str, labels: impl IntoIterator<Item = (&'l String, &'l String)>) {
        for (key, value) in labels {
            let at = format!("{path}[{key}]");
            self.text(&at, key, text::qualified_name);
            self.text(&at, value, text::label_value);
        }
    }

    /// No two elements alike; the later one is reported.
    fn unique<T: Ord + std::fmt::Display>(
        &mut self,
        path: impl AsRef<str>,
        value: T,
        seen: &mut BTreeSet<T>,
    ) {
        if seen.contains(&value) {
            self.bad(path, format!("{value} is given twice"));
        } else {
            seen.insert(value);
        }
    }

    fn at_most<T>(&mut self, path: impl AsRef<str>, items: &[T], limit: usize) {
        if items.len() > limit {
            self.bad(path, format!("{} elements, at most {limit} are allowed", items.len()));
        }
    }
}

fn empty_labels() -> &'static BTreeMap<String, String> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    &EMPTY
}
