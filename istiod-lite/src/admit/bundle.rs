//! Keeping our ValidatingWebhookConfiguration right: whom the API server trusts there, and what it does without us.
//!
//! The leader writes the trust bundle into every webhook that leads to our service. Installed, the configuration lets
//! everything pass while nobody answers; once the API server was seen to get an answer from us (a ConfigMap that only says
//! that it is a probe, sent as a dry run, is refused in our words), it refuses instead. Webhooks of objects that are not of the mesh, namespaces
//! and services, always let pass: a cluster must be able to heal without us.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::drain::Drain;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time;
use tracing::{debug, info, warn};

use super::judge::{PROBE_ANSWER, PROBE_LABEL};

/// The one webhook that may refuse in our absence.
pub const WEBHOOK: &str = "rev.validation.istio.io";
/// Owner of the fields that are written here.
const MANAGER: &str = "ambit-istiod-webhook";
/// Service that webhooks of ours lead to.
const SERVICE: &str = "istiod";
/// How often the configuration is looked at again: somebody may apply the installed one anew.
const LOOK: Duration = Duration::from_secs(60);
/// Pause after a look that did not end well.
const RETRY: Duration = Duration::from_secs(5);
/// Longest call to the API server.
const CALL: Duration = Duration::from_secs(15);
/// Name of the object that is never made.
const PROBE: &str = "ambit-webhook-probe";

/// What is needed to keep the configuration.
pub struct BundleParts {
    /// The API server.
    pub client: Client,
    /// Name of the configuration.
    pub configuration: String,
    /// Namespace of our service.
    pub namespace: String,
    /// Whether to refuse in our absence.
    pub fail_closed: bool,
    /// The trust bundle in PEM.
    pub bundle: watch::Receiver<Arc<str>>,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// When to stop.
    pub drain: Drain,
}

/// How a look ended.
enum Standing {
    /// All is as it should be.
    Settled,
    /// The API server does not ask us yet.
    Waiting,
}

struct Keeper {
    configurations: Api<ValidatingWebhookConfiguration>,
    probes: Api<ConfigMap>,
    configuration: String,
    namespace: String,
    fail_closed: bool,
}

/// Keeps the configuration right while this replica leads, until `drain` begins.
pub async fn keep(parts: BundleParts) {
    let BundleParts { client, configuration, namespace, fail_closed, mut bundle, mut leader, drain } = parts;
    if configuration.is_empty() {
        return;
    }
    let keeper = Keeper {
        configurations: Api::all(client.clone()),
        probes: Api::namespaced(client, &namespace),
        configuration,
        namespace,
        fail_closed,
    };
    loop {
        let wait = if *leader.borrow_and_update() {
            let pem = bundle.borrow_and_update().clone();
            keeper.look(&pem).await
        } else {
            LOOK
        };
        tokio::select! {
            () = time::sleep(wait) => {}
            // A sender that is gone says nothing more; what it said last goes on to hold.
            Ok(()) = bundle.changed() => {}
            Ok(()) = leader.changed() => {}
            () = drain.draining() => return,
        }
    }
}

impl Keeper {
    /// Looks once and mends; how long until the next time.
    async fn look(&self, pem: &str) -> Duration {
        let looked = time::timeout(CALL, self.mend(pem)).await;
        match looked {
            Ok(Ok(Standing::Settled)) => LOOK,
            Ok(Ok(Standing::Waiting)) => RETRY,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                debug!(configuration = self.configuration, "there is no webhook configuration to keep");
                LOOK
            }
            Ok(Err(cause)) => {
                warn!(
                    configuration = self.configuration, %cause,
                    "the webhook configuration cannot be kept right; may istiod get and patch it?"
                );
                RETRY
            }
            Err(_) => {
                warn!(configuration = self.configuration, "the API server does not answer about the webhook");
                RETRY
            }
        }
    }

    async fn mend(&self, pem: &str) -> Result<Standing, kube::Error> {
        let found = self.configurations.get(&self.configuration).await?;
        let ours: Vec<&ValidatingWebhook> =
            found.webhooks.iter().flatten().filter(|webhook| self.is_ours(webhook)).collect();
        if ours.is_empty() {
            warn!(
                configuration = self.configuration,
                "no webhook of it leads to service istiod; nothing to keep"
            );
            return Ok(Standing::Settled);
        }
        let bundle = ByteString(pem.as_bytes().to_vec());
        let trusts = |webhook: &&ValidatingWebhook| webhook.client_config.ca_bundle.as_ref() == Some(&bundle);
        if !ours.iter().all(trusts) {
            // Nobody trusts us there yet, so nobody was seen to get an answer: what is not sent stays as it is.
            self.apply(&ours, &bundle, None).await?;
            info!(configuration = self.configuration, "the API server has our trust bundle for the webhook");
        }
        let wanted = if self.fail_closed { "Fail" } else { "Ignore" };
        let main = ours.iter().find(|webhook| webhook.name == WEBHOOK);
        if main.is_none_or(|webhook| webhook.failure_policy.as_deref() == Some(wanted)) {
            return Ok(Standing::Settled);
        }
        if self.fail_closed && !self.answers().await? {
            return Ok(Standing::Waiting);
        }
        self.apply(&ours, &bundle, Some(wanted)).await?;
        info!(
            configuration = self.configuration,
            failure_policy = wanted,
            "set what the API server does without the webhook"
        );
        Ok(Standing::Settled)
    }

    fn is_ours(&self, webhook: &ValidatingWebhook) -> bool {
        let service = webhook.client_config.service.as_ref();
        service.is_some_and(|service| service.name == SERVICE && service.namespace == self.namespace)
    }

    async fn apply(
        &self,
        webhooks: &[&ValidatingWebhook],
        bundle: &ByteString,
        policy: Option<&str>,
    ) -> Result<(), kube::Error> {
        let patch = patch(&self.configuration, webhooks, bundle, policy);
        let params = PatchParams::apply(MANAGER).force();
        self.configurations.patch(&self.configuration, &params, &Patch::Apply(&patch)).await?;
        Ok(())
    }

    /// Whether the API server gets an answer from us: an object that we must refuse is refused in our words.
    async fn answers(&self) -> Result<bool, kube::Error> {
        let mut probe = ConfigMap::default();
        probe.metadata.name = Some(PROBE.to_owned());
        probe.metadata.labels = Some([(PROBE_LABEL.to_owned(), "true".to_owned())].into());
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match self.probes.create(&params, &probe).await {
            Ok(_) => {
                debug!("the API server does not ask the webhook yet");
                Ok(false)
            }
            Err(kube::Error::Api(status)) if status.message.contains(PROBE_ANSWER) => Ok(true),
            // Our webhook was called in vain: not trusted yet, not reached yet.
            Err(kube::Error::Api(status)) if status.message.contains("webhook") => {
                debug!(answer = status.message, "the API server cannot ask the webhook yet");
                Ok(false)
            }
            Err(cause) => Err(cause),
        }
    }
}

/// What is ours in the configuration. The failurePolicy stays as found where nothing is said of it.
fn patch(name: &str, webhooks: &[&ValidatingWebhook], bundle: &ByteString, policy: Option<&str>) -> Value {
    let one = |webhook: &&ValidatingWebhook| {
        let mut entry = json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } });
        let is_main = webhook.name == WEBHOOK;
        let policy = policy.or(webhook.failure_policy.as_deref()).filter(|_| is_main);
        if let Some(policy) = policy {
            entry["failurePolicy"] = Value::from(policy);
        }
        entry
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": name },
        "webhooks": webhooks.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(name: &str) -> ValidatingWebhook {
        ValidatingWebhook {
            name: name.to_owned(),
            failure_policy: Some("Ignore".to_owned()),
            ..ValidatingWebhook::default()
        }
    }

    #[test]
    fn only_the_webhook_of_the_mesh_ever_refuses_without_us() {
        let (main, labels) = (webhook(WEBHOOK), webhook("labels.validation.ambit.internal"));
        let bundle = ByteString(b"PEM".to_vec());
        let patch = patch("istio-validator-istio-system", &[&main, &labels], &bundle, Some("Fail"));
        assert_eq!(patch["webhooks"][0]["failurePolicy"], "Fail");
        assert_eq!(patch["webhooks"][1]["failurePolicy"], Value::Null);
        for webhook in patch["webhooks"].as_array().unwrap() {
            assert_eq!(webhook["clientConfig"], json!({ "caBundle": "UEVN" }));
        }
    }

    #[test]
    fn a_new_bundle_leaves_the_policy_as_it_was_found() {
        let main = webhook(WEBHOOK);
        let patch = patch("c", &[&main], &ByteString(b"PEM".to_vec()), None);
        assert_eq!(patch["webhooks"][0]["failurePolicy"], "Ignore");
    }
}
