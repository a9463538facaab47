//! The authority of a cluster, by the annotations of its Secret: what the leader tells, and what it is asked.
//!
//! Of the Secret the metadata alone is asked for, so the keys in it never come here. It takes the rights `get` and, for a
//! change, `patch` of that Secret; whoever has them could take the keys, so nothing is given away with it.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, CALL_MAX, Target};
use ambit_runtime::clock;
use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::cmd::place::failure;
use crate::out::{self, Failure};

#[cfg(test)]
mod tests;

/// Where our own authority is kept.
const OWN: &str = "istio-ca-secret";
/// Where one is plugged in.
const PLUGGED: &str = "cacerts";
/// What the leader tells.
const TOLD: &str = "ambit.internal/ca-status";
/// What it is asked.
const ASKED: &str = "ambit.internal/ca-request";
/// Under which name the request is written.
const MANAGER: &str = "ambit-cli";
/// How long a leader may take to answer: an election, and some seconds.
const ANSWER_MAX: Duration = Duration::from_secs(45);
/// Pause between two looks for the answer.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A leader tells at least every 30 s while a rotation is under way; older than this, there may be none.
const OLD: u64 = 120;
/// Longest name of who asks, in characters.
const NAME_CHARS_MAX: usize = 128;

/// The authority of a cluster.
pub(super) struct Authority {
    client: Client,
    namespace: String,
}

impl Authority {
    /// The one of the control plane in `namespace`.
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// What the leader told last.
    ///
    /// # Errors
    /// When the Secret cannot be read, or nothing was told.
    pub(super) async fn status(&self) -> anyhow::Result<Value> {
        if self.is_plugged().await? {
            return Ok(plugged(&self.namespace));
        }
        let mut status = self.told(&self.secret().await?)?;
        if let Some(note) = aged(&status, clock::unix_seconds()) {
            status["note"] = Value::from(note);
        }
        Ok(status)
    }

    /// Asks the leader for something and waits for its answer.
    ///
    /// # Errors
    /// When it refuses, or nobody answers.
    pub(super) async fn change(&self, verb: &str) -> anyhow::Result<()> {
        if self.is_plugged().await? {
            let why = "the authority is plugged in: rotate it where it comes from, first the bundle, then the issuer, \
                       then the bundle again";
            return Err(Failure::new(out::FAILED, why).into());
        }
        let secret = self.secret().await?;
        let status = self.told(&secret)?;
        if annotation(&secret, ASKED).is_some() {
            let words = format!("another request waits for a leader; {}", self.taken_back());
            return Err(Failure::new(out::FAILED, words).into());
        }
        let (id, by) = (new_id(), self.asker().await);
        let request = json!({"id": id, "verb": verb, "generation": status["generation"], "by": by});
        // With its uid, so that a Secret that is gone meanwhile is not made again, empty.
        let object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": OWN, "namespace": self.namespace, "uid": secret["metadata"]["uid"],
                "annotations": {ASKED: request.to_string()},
            },
        });
        write::apply_metadata(&self.client, MANAGER, &object, true).await.map_err(|error| failure(&error))?;
        self.answered(&id).await
    }

    /// Waits for the answer to a request.
    async fn answered(&self, id: &str) -> anyhow::Result<()> {
        let end = clock::monotonic() + ANSWER_MAX;
        loop {
            let looked = match self.secret().await {
                Ok(secret) => self.told(&secret).map(|told| answer(&told, id)),
                Err(error) => Err(error),
            };
            match looked {
                Ok(Some(outcome)) => return outcome.map_err(|why| Failure::new(out::FAILED, why).into()),
                Err(error) if clock::monotonic() >= end => return Err(error.into()),
                Ok(None) if clock::monotonic() >= end => {
                    let words = format!(
                        "no leader has answered within {ANSWER_MAX:?}; is istiod-lite running (ambit check)? The \
                         request stays and is carried out once one leads; {}",
                        self.taken_back()
                    );
                    return Err(Failure::new(out::UNREACHABLE, words).into());
                }
                // An API server may be away for a moment.
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn taken_back(&self) -> String {
        format!("to take it back: kubectl annotate secret {OWN} -n {} {ASKED}-", self.namespace)
    }

    /// Whether an authority is plugged in, which stands before our own.
    async fn is_plugged(&self) -> Result<bool, Failure> {
        match self.metadata(PLUGGED).await {
            Ok(found) => Ok(found.is_some()),
            Err(error @ KubeError::Forbidden { .. }) => {
                out::say(&format!("warning: whether an authority is plugged in cannot be told: {error}"));
                Ok(false)
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// The metadata of our own Secret.
    async fn secret(&self) -> Result<Value, Failure> {
        let found = self.metadata(OWN).await.map_err(|error| failure(&error))?;
        found.ok_or_else(|| {
            let namespace = &self.namespace;
            let words = format!(
                "there is no Secret {namespace}/{OWN}: no control plane has made an authority there; is the mesh \
                 installed (ambit check), or in another namespace (--namespace)?"
            );
            Failure::new(out::UNREACHABLE, words)
        })
    }

    async fn metadata(&self, name: &str) -> Result<Option<Value>, KubeError> {
        let target = Target::new("v1", "Secret", Some(&self.namespace), name)?;
        write::get_metadata(&self.client, &target).await
    }

    fn told(&self, secret: &Value) -> Result<Value, Failure> {
        let place = format!("annotation {TOLD} of Secret {}/{OWN}", self.namespace);
        let Some(text) = annotation(secret, TOLD) else {
            let words = format!(
                "no leader has told yet how the authority stands ({place}); is istiod-lite running, and of this \
                 version (ambit check)?"
            );
            return Err(Failure::new(out::UNREACHABLE, words));
        };
        match serde_json::from_str::<Value>(text) {
            Ok(told) if told.is_object() => Ok(told),
            Ok(_) => Err(Failure::new(out::BAD_DATA, format!("{place} is not what a leader writes"))),
            Err(error) => Err(Failure::new(out::BAD_DATA, format!("{place} cannot be read: {error}"))),
        }
    }

    /// The name that the API server knows us by; what the leader writes down, and no proof.
    async fn asker(&self) -> String {
        const UNKNOWN: &str = "unknown";
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        let Ok(request) = request else { return UNKNOWN.to_owned() };
        match tokio::time::timeout(CALL_MAX, self.client.request::<Value>(request)).await {
            Ok(Ok(review)) => name_in(&review).unwrap_or_else(|| UNKNOWN.to_owned()),
            // It is asked for people's sake: the request goes without it.
            Ok(Err(_)) | Err(_) => UNKNOWN.to_owned(),
        }
    }
}

fn name_in(review: &Value) -> Option<String> {
    let name = review.pointer("/status/userInfo/username").and_then(Value::as_str)?;
    let plain = |c: &char| !c.is_control();
    Some(name.chars().filter(plain).take(NAME_CHARS_MAX).collect()).filter(|name: &String| !name.is_empty())
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// The answer to a request, if it was given: whether it was done, or why not.
fn answer(told: &Value, id: &str) -> Option<Result<(), String>> {
    let answer = &told["answer"];
    if answer["id"] != id {
        return None;
    }
    Some(if answer["outcome"] == "done" {
        Ok(())
    } else {
        Err(answer["why"].as_str().unwrap_or("it was refused").to_owned())
    })
}

/// What is known of an authority that is plugged in: its keys alone would tell more.
fn plugged(namespace: &str) -> Value {
    json!({
        "kept": "plugged", "phase": "idle", "problem": null, "roots": [],
        "note": format!(
            "An authority is plugged in (Secret {namespace}/{PLUGGED}); its roots are those of ConfigMap \
             istio-ca-root-cert. It is rotated where it comes from."
        ),
    })
}

/// What to say of a rotation of which nobody has told for long.
fn aged(status: &Value, now: u64) -> Option<String> {
    let age = now.saturating_sub(status["told_at"].as_u64()?);
    (status["phase"] != "idle" && age > OLD)
        .then(|| format!("This was told {age} s ago: is a replica of istiod-lite leading? ambit check"))
}

fn new_id() -> String {
    // Each state has keys of its own, which the system's random numbers begin.
    let part = || RandomState::new().hash_one(clock::unix_seconds());
    format!("{:016x}{:016x}", part(), part())
}
