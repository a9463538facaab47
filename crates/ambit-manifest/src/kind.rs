//! The kinds of objects that are read, under which apiVersions, and how one object is named.
//!
//! The list is closed on purpose: a kind that nothing reads is an error, never silently ignored. Only who checks
//! manifests and applies nothing may pass it over (`loose`).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($kind:ident, $plural:literal, [$($short:literal),*], $namespaced:literal, [$($version:literal),+];)+) => {
        /// A kind of object that manifests may hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(
                #[doc = concat!("`", stringify!($kind), "`")]
                $kind,
            )+
        }

        impl Kind {
            /// Every kind, in the order in which a set of them is best created.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The name as manifests write it, such as `ServiceAccount`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }

            /// The plural in lower case as API paths have it, such as `serviceaccounts`.
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)+ }
            }

            /// Short names that command lines accept, such as `sa`.
            pub fn short_names(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$($short),*],)+ }
            }

            /// Whether objects of this kind live in a namespace.
            pub fn namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)+ }
            }

            /// The apiVersions that are read, the preferred one first.
            pub fn api_versions(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$($version),+],)+ }
            }
        }
    };
}

kinds! {
    Namespace, "namespaces", ["ns"], false, ["v1"];
    Node, "nodes", ["no"], false, ["v1"];
    ServiceAccount, "serviceaccounts", ["sa"], true, ["v1"];
    ConfigMap, "configmaps", ["cm"], true, ["v1"];
    Secret, "secrets", [], true, ["v1"];
    Service, "services", ["svc"], true, ["v1"];
    EndpointSlice, "endpointslices", [], true, ["discovery.k8s.io/v1"];
    NetworkPolicy, "networkpolicies", ["netpol"], true, ["networking.k8s.io/v1"];
    PeerAuthentication, "peerauthentications", ["pa"], true, ["security.istio.io/v1", "security.istio.io/v1beta1"];
    AuthorizationPolicy, "authorizationpolicies", ["ap"], true, ["security.istio.io/v1", "security.istio.io/v1beta1"];
    RequestAuthentication, "requestauthentications", ["ra"], true, ["security.istio.io/v1", "security.istio.io/v1beta1"];
    ServiceEntry, "serviceentries", ["se"], true, ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
    WorkloadEntry, "workloadentries", ["we"], true, ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
    VirtualService, "virtualservices", ["vs"], true, ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
    GatewayClass, "gatewayclasses", ["gc"], false, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    Gateway, "gateways", ["gtw"], true, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    HTTPRoute, "httproutes", [], true, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    GRPCRoute, "grpcroutes", [], true, ["gateway.networking.k8s.io/v1"];
    TCPRoute, "tcproutes", [], true, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"];
    TLSRoute, "tlsroutes", [], true, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3", "gateway.networking.k8s.io/v1alpha2"];
    ReferenceGrant, "referencegrants", ["refgrant"], true, ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    TrafficPolicy, "trafficpolicies", ["tp"], true, ["ambit.internal/v1"];
    EgressPolicy, "egresspolicies", ["ep"], true, ["ambit.internal/v1alpha1"];
    Deployment, "deployments", ["deploy"], true, ["apps/v1"];
    Pod, "pods", ["po"], true, ["v1"];
}

impl Kind {
    /// The kind with exactly this name, as manifests write it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// The kind a command line means by its name, plural or short name, in any case.
    pub fn from_argument(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let singular = |kind: Self| kind.as_str().to_ascii_lowercase() == word;
        Self::ALL
            .iter()
            .copied()
            .find(|k| singular(*k) || k.plural() == word || k.short_names().contains(&word.as_str()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of one object; displays as `Pod shop/cart` or `Node node1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; `None` for kinds of the whole cluster.
    pub namespace: Option<String>,
    /// Its name, unique per kind and namespace.
    pub name: String,
}

impl ObjectKey {
    /// A key; the namespace is dropped for kinds of the whole cluster and `default` where it is missing.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        let namespace = kind.namespaced().then(|| namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned());
        Self { kind, namespace, name: name.to_owned() }
    }
}

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
