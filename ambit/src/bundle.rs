//! What an installation is made of: the manifests of `deploy/` and `daemonset.yaml`, carried inside this program, with
//! settings put in.
//!
//! Settings replace words in the text, each a word that stands there once for its meaning: so what is printed is the
//! files themselves, comments and all, and the Helm chart makes the same of them with the same words. Nothing here asks
//! anybody.

use serde_json::Value;

mod settings;
#[cfg(test)]
mod tests;

pub use settings::{SETTINGS, Setting, Settings, SettingsError, Shape};

/// Label that everything of ours has, with its value.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "ambit");
/// Namespace of the control plane and the node programs.
pub const NAMESPACE: &str = "istio-system";
/// Programs with an image of their own.
pub const IMAGES: &[&str] = &["ztunnel", "ambit-cni", "istiod-lite", "waypoint"];

/// A file of manifests.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Its path in the repository.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The setting that includes it; none if it always is.
    pub switch: Option<&'static str>,
}

macro_rules! part {
    ($path:literal) => {
        part!($path, None)
    };
    ($path:literal if $switch:literal) => {
        part!($path, Some($switch))
    };
    ($path:literal, $switch:expr) => {
        Part {
            path: $path,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $path)),
            switch: $switch,
        }
    };
}

/// The files, in the order in which they are best applied.
pub const PARTS: &[Part] = &[
    part!("deploy/00-namespace.yaml"),
    part!("deploy/10-crds-ambit.yaml"),
    part!("deploy/11-crds-security.yaml" if "crds.istio"),
    part!("deploy/12-crds-networking.yaml" if "crds.istio"),
    part!("deploy/20-rbac.yaml"),
    part!("deploy/30-istiod-lite.yaml"),
    part!("deploy/40-gatewayclass.yaml" if "gatewayClass"),
    part!("deploy/45-webhook.yaml" if "webhook"),
    part!("deploy/50-networkpolicies.yaml" if "networkPolicies"),
    part!("daemonset.yaml"),
    part!("deploy/optional/60-podmonitor.yaml" if "podMonitor"),
    part!("deploy/optional/61-istiod-hpa.yaml" if "istiod.autoscaling"),
];

/// The manifests as text, in order.
pub fn yaml(settings: &Settings) -> String {
    let replacements = settings.replacements();
    let included = PARTS.iter().filter(|part| part.switch.is_none_or(|switch| settings.is_on(switch)));
    included.map(|part| put_in(part.text, &replacements)).collect()
}

/// The same as objects.
///
/// # Errors
/// When a text is no YAML, which only settings could have made of it.
pub fn objects(settings: &Settings) -> Result<Vec<Value>, SettingsError> {
    read(&yaml(settings))
}

/// Every object that some settings install.
///
/// # Errors
/// As [`objects`].
pub fn everything() -> Result<Vec<Value>, SettingsError> {
    read(&PARTS.iter().map(|part| part.text).collect::<String>())
}

/// Reads manifests.
fn read(text: &str) -> Result<Vec<Value>, SettingsError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|cause| SettingsError::Text(Box::new(cause)))?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

fn put_in(text: &str, replacements: &[(String, String)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (word, instead)| text.replace(word, instead))
}
