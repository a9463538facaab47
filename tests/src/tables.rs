//! The policy table: who may connect to whom, the same rows for every driver.
//!
//! Reads `tests/tables/policy.yaml` and writes its cast and policies as manifests. How the rows are run, and where
//! the addresses come from, is the driver's affair.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

/// The table as written.
const POLICY: &str = include_str!("../tables/policy.yaml");

/// Every group of cases, and who takes part.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Ports on which servers listen.
    pub ports: Vec<u16>,
    /// Pods by name.
    pub cast: BTreeMap<String, Member>,
    /// Cases by the policies in force.
    pub groups: Vec<Group>,
}

/// One pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Member {
    /// Node it runs on.
    pub node: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is in the mesh; true unless said.
    #[serde(default = "yes")]
    pub enrolled: bool,
    /// Trust domain of its identity; `cluster.local` unless said.
    #[serde(default = "cluster_local")]
    pub trust_domain: String,
}

/// Cases under one set of policies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it shows.
    pub name: String,
    /// The only policies in force.
    pub given: Vec<Policy>,
    /// The cases.
    pub when: Vec<Row>,
}

/// A policy in the table's shorthand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `NAMESPACE/NAME` if it is an AuthorizationPolicy.
    #[serde(rename = "AuthorizationPolicy")]
    pub authorization: Option<String>,
    /// `NAMESPACE/NAME` if it is a PeerAuthentication.
    #[serde(rename = "PeerAuthentication")]
    pub peer: Option<String>,
    /// As in the manifest, with places for addresses.
    pub spec: Value,
    /// Whether it only speaks.
    #[serde(default, rename = "dryRun")]
    pub dry_run: bool,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it shows; unique in its group.
    pub name: String,
    /// Who connects.
    pub client: String,
    /// To whom.
    pub server: String,
    /// To which port.
    pub port: u16,
    /// What must come of it.
    pub expect: Expect,
    /// Drivers that run it; all if empty.
    #[serde(default)]
    pub only: Vec<String>,
}

/// What must come of a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    /// `allow` or `deny`.
    pub verdict: String,
    /// Reason code, if there is one.
    pub code: Option<String>,
    /// The policy that decides, if a single one does.
    pub policy: Option<String>,
    /// What dry-run policies would have done.
    #[serde(default)]
    pub dry_run: Vec<String>,
}

fn yes() -> bool {
    true
}

fn cluster_local() -> String {
    "cluster.local".to_owned()
}

/// Reads the table.
///
/// # Panics
/// If it does not have the form its head describes.
#[must_use]
pub fn policy() -> Table {
    serde_saphyr::from_str(POLICY).expect("tests/tables/policy.yaml has the form its head describes")
}

impl Row {
    /// Whether a driver (`pure`, `pipeline`, `namespaces`) runs the row.
    #[must_use]
    pub fn is_for(&self, driver: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == driver)
    }
}

impl Policy {
    /// Kind, namespace and name.
    ///
    /// # Panics
    /// If the table names neither kind, or no `NAMESPACE/NAME`.
    #[must_use]
    pub fn key(&self) -> (&'static str, &str, &str) {
        let (kind, key) = match (&self.authorization, &self.peer) {
            (Some(key), None) => ("AuthorizationPolicy", key),
            (None, Some(key)) => ("PeerAuthentication", key),
            (Some(_), Some(_)) | (None, None) => panic!("exactly one kind is needed: {self:?}"),
        };
        let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
        (kind, namespace, name)
    }

    /// The manifest; `place` fills `NAME.ip` and `NAME.cidr`.
    #[must_use]
    pub fn manifest(&self, place: &dyn Fn(&str) -> String) -> Value {
        let (kind, namespace, name) = self.key();
        let mut metadata = json!({"name": name, "namespace": namespace});
        if self.dry_run {
            metadata["annotations"] = json!({"istio.io/dry-run": "true"});
        }
        let spec = filled(&self.spec, place);
        json!({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
    }
}

/// A copy with every text of the form `{PLACE}` filled.
fn filled(value: &Value, place: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(name) => Value::String(place(name)),
            None => value.clone(),
        },
        Value::Array(all) => all.iter().map(|v| filled(v, place)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), filled(v, place))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl Member {
    /// The pod as a manifest, running and ready at `address`, its node agent's mark set if it is enrolled.
    #[must_use]
    pub fn pod(&self, name: &str, address: IpAddr, ports: &[u16]) -> Value {
        let mut metadata = json!({
            "name": name, "namespace": self.namespace, "uid": format!("uid-{name}"), "labels": self.labels,
        });
        if self.enrolled {
            metadata["annotations"] = json!({"ambient.istio.io/redirection": "enabled"});
        }
        let ports: Vec<Value> = ports.iter().map(|port| json!({"containerPort": port})).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {
                "nodeName": self.node,
                "serviceAccountName": self.service_account,
                "containers": [{"name": "app", "image": "app", "ports": ports}],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }
}
