//! The authority in Secrets of the root namespace: plugged in as `cacerts`, else ours in `istio-ca-secret`.
//!
//! Ours is made by whichever replica is first: all create it, one succeeds, the others read what that one made. It is
//! changed only as a whole and only from the version that was read, so of several replicas that take the same step one
//! succeeds. What others write into `cacerts` is never changed by us. Evidence that a rotation goes on by lies in a
//! ConfigMap, one member for each replica.
//!
//! A root is made only where none is published: of a Secret that is gone, a replica that runs writes what it held, and one
//! that starts waits for that.
//!
//! Two annotations of our own Secret are for people: what they ask of the leader, and what it tells them. They are here
//! so that nobody may ask who could not take the keys as well, and so that a step and its answer are one write.

use std::collections::BTreeMap;
use std::future::ready;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use ambit_types::TrustDomain;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::lineage;
use super::material::{self, Issuing, MaterialError, Members, Owner};
use super::rotation::Ring;

#[cfg(test)]
pub(in crate::ca) mod tests;

/// Where our own authority is kept.
pub const OWN: &str = "istio-ca-secret";
/// Where one is plugged in.
pub const PLUGGED: &str = "cacerts";
/// The ConfigMap that publishes the roots, under [`material::ROOTS`]; the one beside the Secrets is looked at here.
pub const PUBLISHED: &str = "istio-ca-root-cert";
/// Where replicas write what they know of a rotation.
pub const PROGRESS: &str = "istio-ca-rotation";
/// Annotation of [`OWN`]: what the leader tells of the authority; JSON, without keys.
pub const TOLD: &str = "ambit.internal/ca-status";
/// Annotation of [`OWN`]: what somebody asks of the leader; JSON.
pub const ASKED: &str = "ambit.internal/ca-request";
/// The type of Istio's own Secret.
const TYPE: &str = "istio.io/ca-root";
/// Who changes these objects.
const MANAGER: &str = "ambit-istiod";
/// Longest call.
const CALL: Duration = Duration::from_secs(10);

/// Why there is no authority, or a change of it was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The API server refused or could not be asked.
    #[error("cannot {doing} {namespace}/{name}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// Where.
        namespace: String,
        /// The object's name.
        name: &'static str,
        /// Its answer.
        #[source]
        cause: kube::Error,
    },
    /// It did not answer in time.
    #[error("cannot {doing} {namespace}/{name}: no answer within {CALL:?}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// Where.
        namespace: String,
        /// The object's name.
        name: &'static str,
    },
    /// A Secret is not what it should be.
    #[error("Secret {namespace}/{name}: {cause}; restore it from a backup")]
    Unusable {
        /// Where.
        namespace: String,
        /// Its name.
        name: &'static str,
        /// What is wrong.
        #[source]
        cause: MaterialError,
    },
    /// Somebody else changed it first.
    #[error("Secret {namespace}/{OWN} was changed meanwhile")]
    Conflict {
        /// Where.
        namespace: String,
    },
    /// It is gone while its root is published.
    #[error(
        "Secret {namespace}/{OWN} is gone, but ConfigMap {namespace}/{PUBLISHED} publishes the root that it held, and a \
         new root would cut off everybody who believes that one, so none is made; a replica that still runs writes the \
         Secret anew within seconds; if none does, restore the Secret from a backup, or delete that ConfigMap to begin \
         with a new root"
    )]
    Lost {
        /// Where.
        namespace: String,
    },
    /// It holds another root than is published.
    #[error(
        "Secret {namespace}/{name} holds an issuer whose root is not in ConfigMap {namespace}/{PUBLISHED}, so nobody would \
         believe its certificates; restore the Secret that was there, or add the root to the trust bundle first; or \
         delete that ConfigMap to go over to this root all the same"
    )]
    Unbelieved {
        /// Where.
        namespace: String,
        /// Its name.
        name: &'static str,
    },
    /// Making certificates failed.
    #[error("making the certificate authority")]
    Make(#[source] rcgen::Error),
}

/// An authority as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The issuers.
    pub ring: Ring<Issuing>,
    /// Whose they are.
    pub owner: Owner,
    /// The version of the Secret; for the next change.
    pub version: String,
    /// What people and leaders write beside the keys.
    pub notes: Notes,
}

/// What is written beside the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What a leader told last.
    pub told: Option<String>,
    /// What somebody asks.
    pub asked: Option<String>,
}

/// The Secrets of one root namespace.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    namespace: String,
    /// Name of this replica: its pod's.
    replica: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("namespace", &self.namespace).field("replica", &self.replica).finish()
    }
}

impl Secrets {
    /// The Secrets in `namespace`; `replica` is the name of our pod.
    pub fn new(client: Client, namespace: String, replica: String) -> Self {
        Self { client, namespace, replica }
    }

    /// The name of this replica.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Reads the authority for a program that starts, making one if there is none. What is published already is what the
    /// mesh believes: neither a Secret that was lost nor one that was swapped puts another root in its place.
    ///
    /// # Errors
    /// [`SecretError`]; nothing is replaced then.
    pub async fn open(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Read, SecretError> {
        // Before the Secret, so that what another replica makes meanwhile is not held against it.
        let published = self.published().await?;
        if let Some(read) = self.read().await? {
            let kept = (&read.ring, read.owner);
            let is_believed = published.as_deref().is_none_or(|roots| lineage::is_believed(kept, roots));
            let name = match read.owner {
                Owner::Us => OWN,
                Owner::Plugged => PLUGGED,
            };
            let namespace = self.namespace.clone();
            return is_believed.then_some(read).ok_or(SecretError::Unbelieved { namespace, name });
        }
        if published.is_some() {
            return Err(SecretError::Lost { namespace: self.namespace.clone() });
        }
        // The root's key is not kept: the next root comes with the next rotation.
        let (issuing, _) = material::make(trust_domain, now).map_err(SecretError::Make)?;
        self.create(&Ring::new(issuing)).await
    }

    /// The roots that are published here; none if there are none.
    async fn published(&self) -> Result<Option<String>, SecretError> {
        let found = self.call("read", PUBLISHED, self.maps().get_opt(PUBLISHED)).await?;
        let data = found.and_then(|map| map.data);
        let roots = data.and_then(|mut data| data.remove(material::ROOTS));
        Ok(roots.filter(|text| !text.trim().is_empty()))
    }

    /// Makes our Secret with an authority. Of several replicas that do so one succeeds, and all get what that one wrote.
    ///
    /// # Errors
    /// [`SecretError`]; nothing is replaced then.
    pub async fn create(&self, ring: &Ring<Issuing>) -> Result<Read, SecretError> {
        let secret = self.secret(ring)?;
        let made = self.call("create", OWN, self.secrets().create(&post(), &secret)).await;
        match made {
            Ok(made) => self.parse(OWN, Owner::Us, made),
            Err(SecretError::Api { cause: kube::Error::Api(status), .. }) if status.code == 409 => {
                let winner = self.call("read", OWN, self.secrets().get(OWN)).await?;
                self.parse(OWN, Owner::Us, winner)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the authority; none if there is none.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn read(&self) -> Result<Option<Read>, SecretError> {
        for (name, owner) in [(PLUGGED, Owner::Plugged), (OWN, Owner::Us)] {
            if let Some(secret) = self.call("read", name, self.secrets().get_opt(name)).await? {
                return self.parse(name, owner, secret).map(Some);
            }
        }
        Ok(None)
    }

    /// Keeps an authority of ours instead of the one that was read as `version`. With `answer`, what was asked is taken
    /// away and this is told, in the same write.
    ///
    /// # Errors
    /// [`SecretError::Conflict`] if somebody was faster; [`SecretError`].
    pub async fn replace(
        &self,
        ring: &Ring<Issuing>,
        version: &str,
        answer: Option<&str>,
    ) -> Result<Read, SecretError> {
        let secret = self.secret(ring)?;
        // Members of a rotation that is over are taken away; labels and annotations of others stay.
        let gone = material::TEMPORARY.into_iter().map(|name| (name.to_owned(), Value::Null));
        let mut data: Map<String, Value> = gone.collect();
        data.extend(secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, json!(bytes))));
        let mut change = json!({ "metadata": { "resourceVersion": version }, "data": data });
        if let Some(told) = answer {
            change["metadata"]["annotations"] = json!({ TOLD: told, ASKED: null });
        }
        self.change(change).await
    }

    /// Tells something beside the keys, if the Secret is still the `version` that was read; with `taken`, what was asked
    /// is taken away.
    ///
    /// # Errors
    /// [`SecretError::Conflict`] if somebody was faster; [`SecretError`].
    pub async fn annotate(&self, version: &str, told: &str, taken: bool) -> Result<Read, SecretError> {
        let mut annotations = json!({ TOLD: told });
        if taken {
            annotations[ASKED] = Value::Null;
        }
        self.change(json!({ "metadata": { "resourceVersion": version, "annotations": annotations } })).await
    }

    /// Merges a change into our own Secret.
    async fn change(&self, change: Value) -> Result<Read, SecretError> {
        let patch = Patch::Merge(change);
        match self.call("change", OWN, self.secrets().patch(OWN, &patching(), &patch)).await {
            Ok(kept) => self.parse(OWN, Owner::Us, kept),
            Err(SecretError::Api { cause: kube::Error::Api(status), .. }) if status.code == 409 => {
                Err(SecretError::Conflict { namespace: self.namespace.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// Something about the Secrets changed: a reason to read them. Never ends; failures are passed over, and tried
    /// again in about a second, so that a server that is back is noticed.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        let one = |name: &str| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let events = watcher(self.secrets(), config).backoff(Pauses::default());
            events.filter_map(|event| ready(event.ok().map(drop)))
        };
        futures_util::stream::select(one(OWN), one(PLUGGED))
    }

    /// What replicas wrote of the rotation, by replica.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn progress(&self) -> Result<BTreeMap<String, String>, SecretError> {
        let found = self.call("read", PROGRESS, self.maps().get_opt(PROGRESS)).await?;
        Ok(found.and_then(|map| map.data).unwrap_or_default())
    }

    /// Writes what this replica knows of the rotation.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn write_progress(&self, text: &str) -> Result<(), SecretError> {
        let data = BTreeMap::from([(self.replica.clone(), text.to_owned())]);
        // Only our own member is named, so replicas do not overwrite each other.
        let patch = Patch::Merge(json!({ "data": data }));
        let api = self.maps();
        match self.call("change", PROGRESS, api.patch(PROGRESS, &patching(), &patch)).await {
            Ok(_) => Ok(()),
            Err(SecretError::Api { cause: kube::Error::Api(status), .. }) if status.code == 404 => {
                let map =
                    ConfigMap { metadata: self.meta(PROGRESS), data: Some(data), ..ConfigMap::default() };
                self.call("create", PROGRESS, api.create(&post(), &map)).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// The rotation is over: removes what replicas wrote.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn clear_progress(&self) -> Result<(), SecretError> {
        let api = self.maps();
        match self.call("delete", PROGRESS, api.delete(PROGRESS, &DeleteParams::default())).await {
            Ok(_) => Ok(()),
            Err(SecretError::Api { cause: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn meta(&self, name: &str) -> ObjectMeta {
        let labels = BTreeMap::from([("istio.io/config".to_owned(), "true".to_owned())]);
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }

    fn secret(&self, ring: &Ring<Issuing>) -> Result<Secret, SecretError> {
        let members = material::write(ring).map_err(|cause| self.unusable(OWN, cause))?;
        let data = members.into_iter().map(|(name, bytes)| (name, ByteString(bytes.to_vec()))).collect();
        let (metadata, type_) = (self.meta(OWN), Some(TYPE.to_owned()));
        Ok(Secret { metadata, data: Some(data), type_, ..Secret::default() })
    }

    fn parse(&self, name: &'static str, owner: Owner, secret: Secret) -> Result<Read, SecretError> {
        let version = secret.metadata.resource_version.unwrap_or_default();
        let mut annotations = secret.metadata.annotations.unwrap_or_default();
        let notes = match owner {
            Owner::Us => Notes { told: annotations.remove(TOLD), asked: annotations.remove(ASKED) },
            // Nothing of it can be answered there.
            Owner::Plugged => Notes::default(),
        };
        let members: Members = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(n, bytes)| (n, Zeroizing::new(bytes.0)))
            .collect();
        let ring = material::read(&members).map_err(|cause| self.unusable(name, cause))?;
        Ok(Read { ring, owner, version, notes })
    }

    fn unusable(&self, name: &'static str, cause: MaterialError) -> SecretError {
        SecretError::Unusable { namespace: self.namespace.clone(), name, cause }
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        name: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, SecretError> {
        let namespace = self.namespace.clone();
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(SecretError::Api { doing, namespace, name, cause }),
            Err(_) => Err(SecretError::Timeout { doing, namespace, name }),
        }
    }
}

/// Pauses after failed watches: half a second to one and a half, so that replicas do not all come at once.
#[derive(Debug, Default)]
struct Pauses {
    random: RandomState,
    count: u64,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.count = self.count.wrapping_add(1);
        Some(Duration::from_millis(500 + self.random.hash_one(self.count) % 1000))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn patching() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}
