//! The container network interface, versions 0.1.0 to 1.1.0, as far as a chained plugin that makes nothing needs it:
//! what the runtime's call says, and error objects.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Versions of configurations that are understood, oldest first.
pub const SUPPORTED: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Where the agent listens if the configuration does not say.
pub const SOCKET: &str = "/var/run/ambit-cni/plugin.sock";

/// The variables that the runtime sets; empty ones are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<String>,
    /// `CNI_ARGS`: `KEY=VALUE` with semicolons between.
    pub args: Option<String>,
}

impl Environment {
    /// From variables, of which others are ignored.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "CNI_COMMAND" => environment.command = Some(value),
                "CNI_CONTAINERID" => environment.container_id = Some(value),
                "CNI_NETNS" => environment.netns = Some(value),
                "CNI_ARGS" => environment.args = Some(value),
                _ => {}
            }
        }
        environment
    }

    /// The pod, if the call is for one: containers without Kubernetes have none.
    pub fn pod(&self) -> Option<PodRef> {
        let args: BTreeMap<&str, &str> = self
            .args
            .iter()
            .flat_map(|args| args.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let get =
            |key: &str| args.get(key).map(|value| (*value).to_owned()).filter(|value| !value.is_empty());
        Some(PodRef {
            namespace: get("K8S_POD_NAMESPACE")?,
            name: get("K8S_POD_NAME")?,
            uid: get("K8S_POD_UID"),
        })
    }
}

/// A pod as the runtime names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; old runtimes do not say.
    pub uid: Option<String>,
}

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A sandbox was made.
    Add,
    /// A sandbox is taken down.
    Del,
    /// Is all as it was made?
    Check,
    /// Whatever is not listed may be cleaned up.
    Gc,
    /// Can sandboxes be served?
    Status,
    /// Which versions are understood?
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// [`Code::Environment`].
    pub fn read(environment: &Environment) -> Result<Self, CniError> {
        let command = environment.command.as_deref().unwrap_or_default();
        Ok(match command {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            other => {
                let what =
                    format!("CNI_COMMAND={other:?} is none of ADD, DEL, CHECK, GC, STATUS and VERSION");
                return Err(CniError::new("", Code::Environment, what));
            }
        })
    }
}

/// Our part of a network's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Version of the configuration and of all answers.
    pub cni_version: String,
    /// The agent's socket.
    pub socket: String,
    /// Namespaces whose pods start without asking.
    pub exclude_namespaces: BTreeSet<String>,
    /// The agent's own namespace.
    pub agent_namespace: Option<String>,
    /// What the plugins before us made.
    prev_result: Option<Value>,
}

/// The `cniVersion` of a configuration, if it has one.
pub fn version_of(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value["cniVersion"].as_str().filter(|version| !version.is_empty()).map(str::to_owned)
}

impl Network {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Code::Decode`], [`Code::Version`] or [`Code::Network`].
    pub fn read(text: &str) -> Result<Self, CniError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| CniError::new("", Code::Decode, format!("the configuration is not JSON: {e}")))?;
        let version = value["cniVersion"].as_str().filter(|v| !v.is_empty()).unwrap_or("0.1.0");
        if !SUPPORTED.contains(&version) {
            let what = format!("version {version:?} is none of {}", SUPPORTED.join(", "));
            return Err(CniError::new("", Code::Version, what));
        }
        let strings = |name: &str| -> Result<BTreeSet<String>, CniError> {
            let bad = || CniError::new(version, Code::Network, format!("{name} is no list of strings"));
            match &value[name] {
                Value::Null => Ok(BTreeSet::new()),
                Value::Array(list) => {
                    list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(bad)).collect()
                }
                _ => Err(bad()),
            }
        };
        Ok(Self {
            cni_version: version.to_owned(),
            socket: value["socket"].as_str().filter(|s| !s.is_empty()).unwrap_or(SOCKET).to_owned(),
            exclude_namespaces: strings("excludeNamespaces")?,
            agent_namespace: value["agentNamespace"].as_str().map(str::to_owned),
            prev_result: value.get("prevResult").filter(|result| result.is_object()).cloned(),
        })
    }

    /// What the plugins before us made.
    ///
    /// # Errors
    /// [`Code::Network`] if nothing was: we make no network.
    pub fn result(&self) -> Result<&Value, CniError> {
        self.prev_result.as_ref().ok_or_else(|| {
            let what =
                "there is no prevResult; ambit-cni makes no network and must come after a plugin that does";
            CniError::new(&self.cni_version, Code::Network, what)
        })
    }

    /// The addresses inside the sandbox.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let Some(result) = &self.prev_result else { return BTreeSet::new() };
        let inside = |ip: &&Value| {
            let interface = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
            // Without a sandbox it is an interface of the node.
            interface.is_none_or(|index| result["interfaces"][index]["sandbox"].as_str() != Some(""))
        };
        let listed = result["ips"].as_array().into_iter().flatten().filter(inside).map(|ip| &ip["address"]);
        let old = ["ip4", "ip6"].map(|family| &result[family]["ip"]);
        listed
            .chain(old)
            .filter_map(Value::as_str)
            .filter_map(|text| text.split('/').next()?.parse().ok())
            .collect()
    }
}

/// Codes of error objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The version is not understood.
    Version,
    /// The runtime's variables are wrong.
    Environment,
    /// Reading or writing failed.
    Io,
    /// The configuration is not JSON.
    Decode,
    /// The configuration is wrong.
    Network,
    /// Not now; the same may succeed later.
    Later,
    /// Our own: the pod cannot be captured.
    Refused,
}

impl Code {
    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Network => 7,
            Self::Later => 11,
            Self::Refused => 100,
        }
    }
}

/// An error object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", details.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct CniError {
    /// Version of the configuration; empty if it is not known.
    pub cni_version: String,
    /// What kind.
    pub code: Code,
    /// In words.
    pub message: String,
    /// The pod and the reason code.
    pub details: Option<String>,
}

impl CniError {
    /// Without details.
    pub fn new(cni_version: &str, code: Code, message: impl Into<String>) -> Self {
        Self { cni_version: cni_version.to_owned(), code, message: message.into(), details: None }
    }

    /// With the pod and the reason code.
    #[must_use]
    pub fn about(mut self, pod: &PodRef, reason: Option<String>) -> Self {
        let reason = reason.map(|reason| format!("{reason}, ")).unwrap_or_default();
        self.details = Some(format!("{reason}pod {}/{}", pod.namespace, pod.name));
        self
    }

    /// As the runtime reads it.
    pub fn to_json(&self) -> String {
        let latest = SUPPORTED.last().copied().unwrap_or_default();
        let version = if self.cni_version.is_empty() { latest } else { &self.cni_version };
        let mut object = json!({"cniVersion": version, "code": self.code.number(), "msg": self.message});
        if let Some(details) = &self.details {
            object["details"] = json!(details);
        }
        format!("{object}\n")
    }
}
