//! The configuration of the mesh as a whole.

use ambit_control::input::{MeshConfig, Object};
use ambit_manifest::mesh::{Provider, extension_providers};
use ambit_policy::http::provider::written;

use super::Reader;

impl Reader<'_> {
    /// The mesh configuration of a ConfigMap; nothing of any other one. Which namespace's counts is not decided here.
    pub(super) fn mesh_config(&mut self) -> Option<Object> {
        match extension_providers::<written::Provider>(self.object)? {
            Ok(providers) => {
                let parts = providers.into_iter().map(|Provider { at, name, spec }| (at, name, spec));
                Some(Object::MeshConfig(Box::new(MeshConfig::new(self.name(), parts))))
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}
