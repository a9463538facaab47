//! What may be set of an installation, and the words of the manifests that each setting replaces.
//!
//! Limited on purpose: whoever wants more changes the objects, with kustomize for one.

use std::collections::BTreeMap;

use super::IMAGES;

/// Longest value.
const VALUE_BYTES_MAX: usize = 200;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Letters, digits and `. _ - : / @ = , +`, beginning with a letter, digit or `/`.
    Word,
    /// A number from 1 to 99.
    Count,
    /// `true` or `false`.
    Switch,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// Something that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name, as `--set` and the chart's values have it.
    pub key: &'static str,
    /// Its value if nobody sets it: what the manifests in the repository say.
    pub default: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// What it is for.
    pub about: &'static str,
}

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    word("image.registry", "registry.ambit.internal/ambit", "registry and folder of the images"),
    word("image.tag", env!("CARGO_PKG_VERSION"), "tag of the images"),
    Setting {
        key: "image.pullPolicy",
        default: "IfNotPresent",
        shape: Shape::OneOf(&["Always", "IfNotPresent", "Never"]),
        about: "when nodes pull the images",
    },
    word("logLevel", "info", "filter of the logs, such as info or ztunnel=debug,info"),
    Setting {
        key: "logFormat",
        default: "json",
        shape: Shape::OneOf(&["json", "plain"]),
        about: "form of the logs",
    },
    word("trustDomain", "cluster.local", "root of trust of every identity"),
    word("clusterDomain", "cluster.local", "domain of service names"),
    word("clusterId", "Kubernetes", "name of the cluster"),
    Setting {
        key: "istiod.replicas",
        default: "2",
        shape: Shape::Count,
        about: "replicas of the control plane",
    },
    switch("istiod.autoscaling", "false", "a HorizontalPodAutoscaler in place of a number of replicas"),
    word("cni.binDir", "/opt/cni/bin", "the node's folder of CNI plugins"),
    word("cni.confDir", "/etc/cni/net.d", "the node's folder of CNI configuration"),
    switch("crds.istio", "true", "definitions of Istio's kinds; false where Istio's own are installed"),
    switch("gatewayClass", "true", "the GatewayClass of waypoints; false without the Gateway API"),
    switch("webhook", "true", "the validating webhook"),
    switch("networkPolicies", "true", "NetworkPolicies for our own pods"),
    switch("podMonitor", "false", "PodMonitors for the Prometheus Operator"),
];

const fn word(key: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { key, default, shape: Shape::Word, about }
}

const fn switch(key: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { key, default, shape: Shape::Switch, about }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No `KEY=VALUE`.
    #[error("{text:?} is not KEY=VALUE")]
    Form {
        /// What was written.
        text: String,
    },
    /// Nothing of that name.
    #[error("nothing is called {key:?}; there are: {known}")]
    Unknown {
        /// The name.
        key: String,
        /// Those there are.
        known: String,
    },
    /// A value that the setting cannot have.
    #[error("{key} cannot be {value:?}: {wanted}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        wanted: String,
    },
    /// The manifests are no YAML any more.
    #[error("the manifests cannot be read with these settings")]
    Text(#[source] Box<serde_saphyr::Error>),
}

/// Values of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    set: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Reads words such as `logLevel=debug`; a later one of the same name counts.
    ///
    /// # Errors
    /// [`SettingsError`] of the first that cannot be used.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for text in words.iter().map(AsRef::as_ref) {
            let Some((key, value)) = text.split_once('=') else {
                return Err(SettingsError::Form { text: text.to_owned() });
            };
            settings.put(key.trim(), value.trim())?;
        }
        Ok(settings)
    }

    /// Sets one.
    ///
    /// # Errors
    /// [`SettingsError::Unknown`], [`SettingsError::Value`].
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), SettingsError> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let known = SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
            return Err(SettingsError::Unknown { key: key.to_owned(), known });
        };
        if let Err(wanted) = setting.shape.check(value) {
            return Err(SettingsError::Value { key: setting.key, value: value.to_owned(), wanted });
        }
        self.set.insert(setting.key, value.to_owned());
        Ok(())
    }

    /// The value of a setting; empty for a name that is none.
    pub fn get(&self, key: &str) -> &str {
        let default = || SETTINGS.iter().find(|setting| setting.key == key).map_or("", |s| s.default);
        self.set.get(key).map_or_else(default, String::as_str)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key) == "true"
    }

    /// Words of the manifests and what stands in their place; the chart's template has the same.
    pub(super) fn replacements(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = IMAGES.iter().map(|image| self.image(image)).collect();
        let mut add = |key: &str, form: &dyn Fn(&str) -> String| {
            let default = SETTINGS.iter().find(|setting| setting.key == key).map_or("", |s| s.default);
            all.push((form(default), form(self.get(key))));
        };
        add("image.pullPolicy", &|value| format!("imagePullPolicy: {value}"));
        for (key, variable) in [
            ("logLevel", "RUST_LOG"),
            ("logFormat", "LOG_FORMAT"),
            ("trustDomain", "TRUST_DOMAIN"),
            ("clusterDomain", "CLUSTER_DOMAIN"),
            ("clusterId", "CLUSTER_ID"),
        ] {
            add(key, &|value| format!("{{name: {variable}, value: \"{value}\"}}"));
        }
        add("cni.binDir", &|value| format!("hostPath: {{path: \"{value}\", type"));
        add("cni.confDir", &|value| format!("hostPath: {{path: \"{value}\", type"));
        match self.is_on("istiod.autoscaling") {
            // The scaler writes the number.
            true => all.push(("\n  replicas: 2\n".to_owned(), "\n".to_owned())),
            false => add("istiod.replicas", &|value| format!("\n  replicas: {value}\n")),
        }
        all
    }

    fn image(&self, name: &str) -> (String, String) {
        let default = Self::default();
        let form = |of: &Self| format!("{}/{name}:{}", of.get("image.registry"), of.get("image.tag"));
        (form(&default), form(self))
    }
}

impl Shape {
    /// Whether it may be this; else what it may be.
    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Word => {
                let begins = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@=,+".contains(c);
                if begins && value.chars().all(plain) && value.len() <= VALUE_BYTES_MAX {
                    return Ok(());
                }
                Err(format!(
                    "letters, digits and . _ - : / @ = , + it is, {VALUE_BYTES_MAX} characters at most"
                ))
            }
            Self::Count => match value.parse::<u32>() {
                Ok(1..=99) if !value.starts_with(['0', '+']) => Ok(()),
                Ok(_) | Err(_) => Err("a number from 1 to 99 it is".to_owned()),
            },
            Self::Switch => Self::OneOf(&["true", "false"]).check(value),
            Self::OneOf(words) if words.contains(&value) => Ok(()),
            Self::OneOf(words) => Err(format!("it is one of {}", words.join(", "))),
        }
    }
}
