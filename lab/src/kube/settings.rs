//! What a lab over an API server is started with beyond what every lab is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// The most replicas of the control plane: as many addresses are free above those of the nodes.
const REPLICAS_MAX: u16 = 4;

/// Where a lab's objects live. Default a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A folder below the lab's directory.
    #[default]
    Folder,
    /// A real API server, started with the lab.
    Kube,
}

/// As whom the control plane calls the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caller {
    /// As its service account, with the rights that the manifests give it; as the administrator where they give none.
    #[default]
    Account,
    /// As the administrator.
    Admin,
}

/// By what the lab's commands change objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By requests of the lab's own.
    #[default]
    Api,
    /// By `kubectl`, as a user of a cluster does.
    Kubectl,
}

/// Settings of a lab over an API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubeSettings {
    /// The program with the parts of Kubernetes inside, `ambit-kube`; found when the lab is started.
    pub binary: PathBuf,
    /// Folder of the mesh's manifests, of which definitions and rights are applied; none applies nothing.
    pub deploy: Option<PathBuf>,
    /// How many control planes serve. Default 1, at most 4.
    pub istiod_replicas: u16,
    /// As whom they call. Default their account.
    pub istiod_kubeconfig: Caller,
    /// By what the lab's commands change objects. Default its own requests.
    pub driver: Driver,
}

impl Default for KubeSettings {
    fn default() -> Self {
        Self {
            binary: PathBuf::new(),
            deploy: None,
            istiod_replicas: 1,
            istiod_kubeconfig: Caller::Account,
            driver: Driver::Api,
        }
    }
}

impl KubeSettings {
    /// Settings that `--set` knows here, with what they mean.
    pub const KNOWN: [(&'static str, &'static str); 4] = [
        ("istiod_replicas", "control planes with --source kube, 1 to 4; default 1"),
        ("istiod_kubeconfig", "account or admin: as whom they call the API server; default account"),
        ("driver", "api or kubectl: by what the lab's commands change objects; default api"),
        ("deploy", "folder of the mesh's manifests with --source kube; default the project's deploy/"),
    ];

    /// Applies one setting; says whether it is one of these.
    ///
    /// # Errors
    /// If the value is none that the setting takes.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, LabError> {
        match key {
            "istiod_replicas" => {
                let number = value.parse().ok().filter(|n| (1..=REPLICAS_MAX).contains(n));
                let wrong = || {
                    LabError::Usage(format!(
                        "istiod_replicas={value} is not a number from 1 to {REPLICAS_MAX}"
                    ))
                };
                self.istiod_replicas = number.ok_or_else(wrong)?;
            }
            "istiod_kubeconfig" => {
                self.istiod_kubeconfig = match value {
                    "account" => Caller::Account,
                    "admin" => Caller::Admin,
                    other => {
                        let text = format!("istiod_kubeconfig={other} is not one of account, admin");
                        return Err(LabError::Usage(text));
                    }
                };
            }
            "driver" => {
                self.driver = match value {
                    "api" => Driver::Api,
                    "kubectl" => Driver::Kubectl,
                    other => {
                        return Err(LabError::Usage(format!("driver={other} is not one of api, kubectl")));
                    }
                };
            }
            "deploy" => {
                let absolute = Path::new(value).canonicalize();
                self.deploy = Some(absolute.map_err(LabError::file("opening folder", value))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Finds what was not said: the program, and the project's manifests.
    ///
    /// # Errors
    /// If there is no program; says how it is made.
    pub fn complete(&mut self, named: Option<&Path>, own: &Path) -> Result<(), LabError> {
        self.binary = super::binary::find(named, own)?;
        if self.deploy.is_none() {
            self.deploy = super::deploy::folder(own);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_or_refused_by_value() {
        let rows = [
            ("istiod_replicas", "2", Ok(true)),
            ("istiod_replicas", "0", Err(())),
            ("istiod_replicas", "5", Err(())),
            ("istiod_replicas", "two", Err(())),
            ("istiod_kubeconfig", "admin", Ok(true)),
            ("istiod_kubeconfig", "root", Err(())),
            ("driver", "kubectl", Ok(true)),
            ("driver", "helm", Err(())),
            ("deploy", "/nowhere/at/all", Err(())),
            ("leaf_ttl", "20s", Ok(false)),
        ];
        for (key, value, want) in rows {
            let got = KubeSettings::default().set(key, value).map_err(|_| ());
            assert_eq!(got, want, "row {key}={value}");
        }
    }
}
