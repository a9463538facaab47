//! `POST /explain`: what would happen to a connection, by the snapshot that this node decides by now.
//!
//! What waypoints go by is not known to a node: the answer says so, and a waypoint's own `/explain` knows it.

use std::collections::BTreeMap;

use ambit_explain::{Certificate, Destination, Explanation, Question, Settings, View};
use ambit_net::tls::store::Known;
use ambit_runtime::admin::{Call, Reply};
use ambit_runtime::clock;
use ambit_state::MeshedPlaintext;
use ambit_types::{Identity, Network};
use http::StatusCode;

use crate::proxy::Proxy;

/// Answers a question as JSON.
pub(super) async fn explain(proxy: &Proxy, call: &Call) -> Reply {
    match answer(proxy, &call.body).await {
        Ok(explanation) => Reply::json(&explanation),
        Err(text) => Reply::text(StatusCode::BAD_REQUEST, text),
    }
}

/// Answers a question that is the body of a call, or says what is wrong with it.
pub(crate) async fn answer(proxy: &Proxy, body: &[u8]) -> Result<Explanation, String> {
    let question = read(body)?;
    settle(proxy, &question).await;
    let snapshot = proxy.mesh.snapshot();
    let certificates = certificates(proxy.certificates.list(), clock::unix_seconds());
    // As the listeners of plaintext are set.
    let meshed_plaintext = MeshedPlaintext::default();
    let settings = Settings { same_node: proxy.settings.same_node, meshed_plaintext };
    let view = View::new(&snapshot).with_certificates(&certificates).with_settings(settings);
    Ok(ambit_explain::explain(&view, &question))
}

fn read(body: &[u8]) -> Result<Question, String> {
    let question: Question =
        serde_json::from_slice(body).map_err(|error| format!("the question cannot be read: {error}\n"))?;
    question.check().map_err(|error| format!("{error}\n"))?;
    Ok(question)
}

/// Waits until it is known what is at the address that is asked about, as a connection to it would.
async fn settle(proxy: &Proxy, question: &Question) {
    let Destination::Address(address) = &question.destination else { return };
    if let Err(refusal) = proxy.mesh.settle(&Network::default(), address.ip()).await {
        tracing::debug!(%refusal, "what is asked about stays unknown");
    }
}

/// How it stands with the certificates that this node holds; those of others are not judged here.
fn certificates(known: Vec<Known>, now: u64) -> BTreeMap<Identity, Certificate> {
    let state = |known: &Known| match (&known.credential, &known.error) {
        (Some(credential), _) if credential.not_after() > now => {
            Certificate::Valid { remaining_s: credential.not_after() - now }
        }
        (Some(_), _) => Certificate::Expired,
        (None, Some(_)) => Certificate::Refused,
        (None, None) => Certificate::Missing,
    };
    known.into_iter().map(|known| (known.identity.clone(), state(&known))).collect()
}
