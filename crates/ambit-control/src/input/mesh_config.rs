//! The configuration of the mesh as a whole: ConfigMap `istio` of the root namespace, as far as it is read.

use ambit_policy::http::provider::{self, written};
use ambit_types::Str;

use super::Name;

/// Name of the ConfigMap that counts, in the root namespace.
pub(crate) const MESH_CONFIG: &str = "istio";

/// The configuration of the mesh. One of another name or namespace is held, and means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// Namespace and name of its ConfigMap.
    pub name: Name,
    /// Elements of `extensionProviders` that are authorizers, in order.
    pub providers: Vec<WrittenProvider>,
}

impl MeshConfig {
    /// The configuration of a ConfigMap: where each authorizer stands, its name, and what it says or why nothing.
    pub fn new(
        name: Name,
        providers: impl IntoIterator<Item = (String, String, Result<written::Provider, Vec<String>>)>,
    ) -> Self {
        let written = |(at, name, spec): (String, String, _)| WrittenProvider {
            at: at.into(),
            name: name.into(),
            spec,
        };
        Self { name, providers: providers.into_iter().map(written).collect() }
    }
}

/// An authorizer as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenProvider {
    /// Where it stands, such as `extensionProviders[0]`.
    pub at: Str,
    /// What policies call it; empty if that cannot be read.
    pub name: Str,
    /// What it says, or everything about its form that cannot be read.
    pub spec: Result<written::Provider, Vec<String>>,
}

impl WrittenProvider {
    /// The provider, or every mistake in it.
    pub(crate) fn compile(&self) -> Result<provider::Provider, Vec<String>> {
        let written = self.spec.as_ref().map_err(Clone::clone)?;
        provider::compile(written).map_err(|all| all.iter().map(|one| format!("{}.{one}", self.at)).collect())
    }
}
