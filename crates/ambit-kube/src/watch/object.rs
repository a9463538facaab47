//! What a watch yields, by kind: types for the kinds of Kubernetes itself, JSON for all others.
//!
//! No tree of JSON is built for kinds of which there are many. What others wrote into a cluster is JSON first, so that
//! an object that does not fit its type is one problem and does not end the listing.

use ambit_manifest::{Located, Object, Problem, served};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::resource::Resource;

/// An object as it is read from a listing or a watch.
pub(super) trait Served: Clone + DeserializeOwned + Send + 'static {
    /// Namespace (empty for the whole cluster), name and version.
    fn names(&self) -> (&str, &str, &str);

    /// The object, typed.
    fn read(self, resource: &Resource) -> Result<Located, Vec<Problem>>;
}

macro_rules! typed {
    ($($kind:ident)+) => {
        $(impl Served for $kind {
            fn names(&self) -> (&str, &str, &str) {
                let of = &self.metadata;
                (
                    of.namespace.as_deref().unwrap_or_default(),
                    of.name.as_deref().unwrap_or_default(),
                    of.resource_version.as_deref().unwrap_or_default(),
                )
            }

            fn read(mut self, _: &Resource) -> Result<Located, Vec<Problem>> {
                self.metadata.managed_fields = None;
                served(Object::$kind(Box::new(self)))
            }
        })+
    };
}

typed! { ConfigMap Deployment EndpointSlice Namespace NetworkPolicy Secret Service ServiceAccount }

impl Served for Value {
    fn names(&self) -> (&str, &str, &str) {
        let text = |pointer: &str| self.pointer(pointer).and_then(Self::as_str).unwrap_or_default();
        (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/resourceVersion"))
    }

    fn read(mut self, resource: &Resource) -> Result<Located, Vec<Problem>> {
        // Items of a list need not repeat what they are.
        if let Some(fields) = self.as_object_mut() {
            for (field, text) in [("apiVersion", &resource.api_version), ("kind", &resource.kind)] {
                fields.entry(field).or_insert_with(|| Self::String(text.clone()));
            }
        }
        crate::served::read(self)
    }
}
