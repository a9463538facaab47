//! `kubectl` inside the fabric, where the API server's address exists: for the mesh's manifests, and for a lab whose
//! objects are changed by it instead of by requests of the lab's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ambit_manifest::ObjectKey;
use serde_json::{Value, json};

use super::api::Refusal;
use crate::error::LabError;
use crate::link::Place;
use crate::paths::RunDir;

/// Longest time that it waits for an answer of the API server.
const PATIENCE: &str = "--request-timeout=10s";

/// `kubectl` with the administrator's rights.
#[derive(Debug)]
pub struct Kubectl {
    binary: PathBuf,
    fabric: Arc<Place>,
    run: RunDir,
    /// Counts the files that it is given.
    files: AtomicU64,
}

/// What is done to an object by naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Delete it; what depends on it first, if that is asked.
    Delete {
        /// Whether that is asked.
        foreground: bool,
    },
    /// Change its labels.
    Label,
    /// Change its annotations.
    Annotate,
}

impl Kubectl {
    /// The one in that program.
    pub fn new(binary: PathBuf, fabric: Arc<Place>, run: RunDir) -> Self {
        Self { binary, fabric, run, files: AtomicU64::new(0) }
    }

    /// Runs it to its end; its standard output. Blocking.
    ///
    /// # Errors
    /// With what it wrote to standard error.
    pub fn run(&self, args: &[&str]) -> Result<String, LabError> {
        let failed = |stderr: String| LabError::Tool { tool: "kubectl", doing: args.join(" "), stderr };
        let mut command = Command::new(&self.binary);
        // It keeps what it has discovered of the API server below its home.
        command
            .arg("kubectl")
            .args(args)
            .env("KUBECONFIG", self.run.kubeconfig())
            .env("HOME", self.run.kube());
        let output: std::io::Result<std::process::Output> =
            self.fabric.netns.run_on_thread(|| command.output())?;
        let output = output.map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Applies objects in one call; those that the server answered with. Blocks the calling thread only.
    ///
    /// # Errors
    /// Why not all of them were taken.
    pub fn apply(&self, objects: &[Value]) -> Result<Vec<Value>, Refusal> {
        let unfit = |e: std::io::Error| Refusal::Refused { code: 400, message: e.to_string() };
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = self.run.kube().join(format!("apply-{number}.json"));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&file, list.to_string()).map_err(unfit)?;
        let path = file.to_string_lossy();
        let answer = self.ask(&["apply", "-f", &path, "-o", "json", PATIENCE]);
        fs::remove_file(&file).map_err(unfit)?;
        let answer = answer?;
        Ok(match answer.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![answer],
        })
    }

    /// Does something to one object; what the server answered, if it shows an object.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn name(&self, verb: Verb, key: &ObjectKey, changes: &[String]) -> Result<Value, Refusal> {
        let resource = resource(key);
        let mut args = match verb {
            Verb::Delete { foreground: false } => vec!["delete", "--wait=false"],
            Verb::Delete { foreground: true } => vec!["delete", "--wait=false", "--cascade=foreground"],
            Verb::Label => vec!["label", "--overwrite", "-o", "json"],
            Verb::Annotate => vec!["annotate", "--overwrite", "-o", "json"],
        };
        args.extend([PATIENCE, resource.as_str(), key.name.as_str()]);
        if let Some(namespace) = &key.namespace {
            args.extend(["-n", namespace]);
        }
        args.extend(changes.iter().map(String::as_str));
        self.ask(&args)
    }

    fn ask(&self, args: &[&str]) -> Result<Value, Refusal> {
        match tokio::task::block_in_place(|| self.run(args)) {
            Ok(text) => Ok(object_in(&text)),
            Err(LabError::Tool { stderr, .. }) => Err(refusal(&stderr)),
            Err(other) => Err(Refusal::Away(other.full())),
        }
    }
}

/// The object in what it printed; null if there is none. Remarks may stand before it.
fn object_in(text: &str) -> Value {
    let json = text.find('{').map(|at| &text[at..]);
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The kind of an object as it is named on the command line, with its group.
fn resource(key: &ObjectKey) -> String {
    let version = key.kind.api_versions().first().copied().unwrap_or("v1");
    let plural = key.kind.plural();
    version.split_once('/').map_or_else(|| plural.to_owned(), |(group, _)| format!("{plural}.{group}"))
}

/// Why something was not done, by what it wrote to standard error. What is final counts before what may pass.
fn refusal(stderr: &str) -> Refusal {
    let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let message = stderr.to_owned();
    if has(&["denied the request", "BadRequest"]) {
        Refusal::Refused { code: 400, message }
    } else if has(&["is invalid", "(Invalid)"]) {
        Refusal::Refused { code: 422, message }
    } else if has(&["(Conflict)", "(AlreadyExists)"]) {
        Refusal::Conflict(message)
    } else if has(&["(NotFound)", "no matches for kind"]) || (has(&["(Forbidden)"]) && has(&["not found"])) {
        Refusal::Absent(message)
    } else if has(&AWAY) {
        Refusal::Away(message)
    } else {
        Refusal::Refused { code: 400, message }
    }
}

/// Words that say that the API server was not reached, or is too busy.
const AWAY: [&str; 7] = [
    "Unable to connect",
    "connection to the server",
    "(ServiceUnavailable)",
    "(InternalError)",
    "(Timeout)",
    "(TooManyRequests)",
    "imeout",
];

#[cfg(test)]
mod tests {
    use ambit_manifest::Kind;

    use super::*;

    #[test]
    fn what_it_says_is_final_or_may_pass() {
        let rows = [
            (r#"Error from server (NotFound): namespaces "shop" not found"#, "absent"),
            (
                r#"Error from server (Forbidden): pods "a" is forbidden: error looking up service account shop/default: serviceaccount "default" not found"#,
                "absent",
            ),
            (
                r#"The Pod "a" is invalid: spec: Forbidden: pod updates may not change fields other than"#,
                "422",
            ),
            (
                r#"Error from server (Forbidden): admission webhook "rev.validation.istio.io" denied the request: not found"#,
                "400",
            ),
            ("The connection to the server 172.30.0.254:6443 was refused", "away"),
            ("error: something else", "400"),
        ];
        for (text, want) in rows {
            let got = match refusal(text) {
                Refusal::Absent(_) => "absent".to_owned(),
                Refusal::Conflict(_) => "conflict".to_owned(),
                Refusal::Refused { code, .. } => code.to_string(),
                Refusal::Away(_) => "away".to_owned(),
            };
            assert_eq!(got, want, "row {text}");
        }
    }

    #[test]
    fn kinds_are_named_with_their_group() {
        let of = |kind| resource(&ObjectKey::new(kind, Some("shop"), "x"));
        assert_eq!(of(Kind::Pod), "pods");
        assert_eq!(of(Kind::Gateway), "gateways.gateway.networking.k8s.io");
    }

    #[test]
    fn an_object_is_found_behind_remarks() {
        assert_eq!(object_in("label \"a\" not found.\n{\"kind\": \"Pod\"}\n"), json!({"kind": "Pod"}));
        assert_eq!(object_in("pod \"a\" deleted\n"), Value::Null);
    }
}
