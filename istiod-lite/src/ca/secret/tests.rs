//! Making and changing the authority against an API server that keeps objects and their versions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ambit_types::TrustDomain;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::super::material::{self, Owner};
use super::{ASKED, Notes, OWN, PUBLISHED, SecretError, Secrets};

/// Objects by path, as `kubectl get -o json` shows them.
#[derive(Clone, Default)]
pub(in crate::ca) struct Server {
    pub(in crate::ca) objects: Arc<Mutex<BTreeMap<String, Value>>>,
    version: Arc<Mutex<u64>>,
}

impl Server {
    pub(in crate::ca) fn secrets(&self, replica: &str) -> Secrets {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                // Others run between a replica's reading and its writing.
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(server.serve(&parts.method, parts.uri.path(), &body))
            }
        });
        let client = kube::Client::new(service, "istio-system");
        Secrets::new(client, "istio-system".to_owned(), replica.to_owned())
    }

    pub(in crate::ca) fn put(&self, name: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = data.iter().map(|(n, text)| (*n, STANDARD.encode(text))).collect();
        let object =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": data });
        self.keep(format!("/api/v1/namespaces/istio-system/secrets/{name}"), object);
    }

    /// Sets an annotation of a Secret, as somebody with that right does.
    pub(in crate::ca) fn annotate(&self, name: &str, key: &str, text: &str) {
        let path = format!("/api/v1/namespaces/istio-system/secrets/{name}");
        let mut object = self.objects.lock().unwrap()[&path].clone();
        merge(&mut object, &json!({ "metadata": { "annotations": { key: text } } }));
        drop(self.keep(path, object));
    }

    /// An annotation of a Secret; null if it has none.
    pub(in crate::ca) fn annotation(&self, name: &str, key: &str) -> Value {
        let path = format!("/api/v1/namespaces/istio-system/secrets/{name}");
        self.objects.lock().unwrap()[&path]["metadata"]["annotations"][key].clone()
    }

    pub(in crate::ca) fn remove(&self, name: &str) {
        let path = format!("/api/v1/namespaces/istio-system/secrets/{name}");
        self.objects.lock().unwrap().remove(&path);
    }

    /// Publishes roots as a leader does; none takes them away.
    pub(in crate::ca) fn publish(&self, roots: Option<&str>) {
        let path = format!("/api/v1/namespaces/istio-system/configmaps/{PUBLISHED}");
        match roots {
            Some(roots) => {
                let metadata = json!({ "name": PUBLISHED });
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "root-cert.pem": roots },
                });
                drop(self.keep(path, object));
            }
            None => drop(self.objects.lock().unwrap().remove(&path)),
        }
    }

    fn keep(&self, path: String, mut object: Value) -> Value {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        object["metadata"]["resourceVersion"] = Value::from(version.to_string());
        self.objects.lock().unwrap().insert(path, object.clone());
        object
    }

    fn serve(&self, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
        let held = self.objects.lock().unwrap().get(path).cloned();
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        match (method, held) {
            (&Method::POST, _) => {
                let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
                if self.objects.lock().unwrap().contains_key(&path) {
                    return refusal(409, "AlreadyExists");
                }
                answer(StatusCode::CREATED, &self.keep(path, sent))
            }
            (_, None) => refusal(404, "NotFound"),
            (&Method::GET, Some(object)) => answer(StatusCode::OK, &object),
            (&Method::PATCH, Some(mut object)) => {
                let wanted = &sent["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict");
                }
                merge(&mut object, &sent);
                answer(StatusCode::OK, &self.keep(path.to_owned(), object))
            }
            (&Method::DELETE, Some(object)) => {
                self.objects.lock().unwrap().remove(path);
                answer(StatusCode::OK, &object)
            }
            (other, Some(_)) => panic!("{other} {path} is not expected"),
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn answer(code: StatusCode, object: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(serde_json::to_vec(object).unwrap())).unwrap()
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": reason,
        "message": reason, "code": code,
    });
    answer(StatusCode::from_u16(code).unwrap(), &status)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[tokio::test]
async fn of_many_replicas_that_start_at_once_one_makes_the_authority() {
    let server = Server::default();
    let domain = TrustDomain::default();
    let open = |n: usize| {
        let secrets = server.secrets(&format!("istiod-{n}"));
        let domain = domain.clone();
        async move { secrets.open(&domain, now()).await.unwrap() }
    };
    let all = futures_util::future::join_all((0..8).map(open)).await;
    assert!(all.iter().all(|one| *one == all[0]), "all have the same issuer and version");
    let path = "/api/v1/namespaces/istio-system/secrets/istio-ca-secret";
    let kept = server.objects.lock().unwrap()[path].clone();
    assert_eq!(kept["type"], "istio.io/ca-root");
    for member in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "key.pem", "root-cert.pem"] {
        assert!(kept["data"].get(member).is_some(), "{member}");
    }
    assert_eq!(server.secrets("later").open(&domain, now()).await.unwrap(), all[0]);
}

#[tokio::test]
async fn no_root_is_made_while_the_one_of_a_lost_secret_is_published() {
    let server = Server::default();
    let (secrets, domain) = (server.secrets("a"), TrustDomain::default());
    let first = secrets.open(&domain, now()).await.unwrap();
    server.publish(Some(&first.ring.signing.roots));
    assert_eq!(secrets.open(&domain, now()).await.unwrap().ring, first.ring);
    server.remove(OWN);
    let lost = secrets.open(&domain, now()).await.unwrap_err();
    assert!(matches!(lost, SecretError::Lost { .. }), "{lost}");
    assert!(lost.to_string().contains("ConfigMap istio-system/istio-ca-root-cert"), "{lost}");
    let kept = server.objects.lock().unwrap().keys().any(|path| path.ends_with(OWN));
    assert!(!kept, "a Secret was made all the same");
    // Whoever still has it writes it anew, and all that start take that up.
    secrets.create(&first.ring).await.unwrap();
    assert_eq!(server.secrets("b").open(&domain, now()).await.unwrap().ring, first.ring);
    // An empty ConfigMap publishes nothing, and who takes it away wants a new root.
    for published in [Some(" \n"), None] {
        server.remove(OWN);
        server.publish(published);
        assert_ne!(secrets.open(&domain, now()).await.unwrap().ring, first.ring);
    }
}

#[tokio::test]
async fn a_program_does_not_start_with_a_root_that_nobody_believes() {
    let server = Server::default();
    let (secrets, domain) = (server.secrets("a"), TrustDomain::default());
    let first = secrets.open(&domain, now()).await.unwrap();
    let (other, _) = material::make(&domain, now()).unwrap();
    server.publish(Some(&other.roots));
    let refused = secrets.open(&domain, now()).await.unwrap_err();
    assert!(matches!(refused, SecretError::Unbelieved { name: OWN, .. }), "{refused}");
    server.publish(Some(&format!("{}{}", other.roots, first.ring.signing.roots)));
    assert_eq!(secrets.open(&domain, now()).await.unwrap().ring, first.ring);
    // A plugged-in one, whose root has to be in the bundle before it signs.
    let both = format!("{}{}", other.roots, first.ring.signing.roots);
    let members = [
        ("ca-cert.pem", other.certificate.as_str()),
        ("ca-key.pem", other.key.as_str()),
        ("cert-chain.pem", other.chain.as_str()),
        ("root-cert.pem", both.as_str()),
    ];
    server.put("cacerts", &members);
    server.publish(Some(&first.ring.signing.roots));
    let refused = secrets.open(&domain, now()).await.unwrap_err();
    assert!(matches!(refused, SecretError::Unbelieved { name: "cacerts", .. }), "{refused}");
    server.publish(Some(&both));
    assert_eq!(secrets.open(&domain, now()).await.unwrap().owner, Owner::Plugged);
}

#[tokio::test]
async fn a_change_counts_only_from_the_version_that_was_read() {
    let server = Server::default();
    let (one, two) = (server.secrets("a"), server.secrets("b"));
    let domain = TrustDomain::default();
    let read = one.open(&domain, now()).await.unwrap();
    let (fresh, _) = material::make(&domain, now()).unwrap();
    let waiting = read.ring.begin(fresh, 1_000, 3_600).unwrap();
    let kept = one.replace(&waiting, &read.version, None).await.unwrap();
    assert_eq!(kept.ring, waiting);
    let late = two.replace(&waiting.abort(1_001).unwrap(), &read.version, None).await;
    assert!(matches!(late, Err(SecretError::Conflict { .. })), "{late:?}");
    // What a rotation needed is gone with it.
    let back = two.replace(&waiting.abort(1_001).unwrap(), &kept.version, None).await.unwrap();
    assert_eq!(back.ring.other, None);
    let path = "/api/v1/namespaces/istio-system/secrets/istio-ca-secret";
    let data = server.objects.lock().unwrap()[path]["data"].clone();
    assert!(data.as_object().unwrap().keys().all(|name| !name.starts_with("other-")), "{data}");
}

#[tokio::test]
async fn a_plugged_authority_wins_and_a_broken_one_is_an_error() {
    let server = Server::default();
    let secrets = server.secrets("a");
    let domain = TrustDomain::default();
    drop(secrets.open(&domain, now()).await.unwrap());
    let (plugged, _) = material::make(&domain, now()).unwrap();
    server.put(
        "cacerts",
        &[
            ("ca-cert.pem", &plugged.certificate),
            ("ca-key.pem", &plugged.key),
            ("cert-chain.pem", &plugged.chain),
            ("root-cert.pem", &plugged.roots),
        ],
    );
    let read = secrets.read().await.unwrap().unwrap();
    assert_eq!((read.owner, &read.ring.signing), (Owner::Plugged, &plugged));
    server.put("cacerts", &[("ca-cert.pem", &plugged.certificate), ("root-cert.pem", &plugged.roots)]);
    let error = secrets.read().await.unwrap_err().to_string();
    assert!(error.contains("istio-system/cacerts") && error.contains("ca-key.pem"), "{error}");
    assert!(secrets.open(&domain, now()).await.is_err(), "and it is never replaced by ours");
}

#[tokio::test]
async fn replicas_write_side_by_side_what_they_know() {
    let server = Server::default();
    let (one, two) = (server.secrets("a"), server.secrets("b"));
    assert!(one.progress().await.unwrap().is_empty());
    one.write_progress("1").await.unwrap();
    two.write_progress("2").await.unwrap();
    one.write_progress("3").await.unwrap();
    let told = two.progress().await.unwrap();
    assert_eq!(told, BTreeMap::from([("a".to_owned(), "3".to_owned()), ("b".to_owned(), "2".to_owned())]));
    two.clear_progress().await.unwrap();
    one.clear_progress().await.unwrap();
    assert!(one.progress().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_step_and_its_answer_are_one_write_and_what_was_asked_is_gone_with_it() {
    let server = Server::default();
    let secrets = server.secrets("a");
    let domain = TrustDomain::default();
    drop(secrets.open(&domain, now()).await.unwrap());
    server.annotate(OWN, ASKED, "asked");
    let read = secrets.read().await.unwrap().unwrap();
    assert_eq!(read.notes, Notes { told: None, asked: Some("asked".to_owned()) });
    let (fresh, _) = material::make(&domain, now()).unwrap();
    let waiting = read.ring.begin(fresh, 1_000, 3_600).unwrap();
    let stale = secrets.replace(&waiting, "0", Some("told")).await;
    assert!(matches!(stale, Err(SecretError::Conflict { .. })), "{stale:?}");
    assert_eq!(server.annotation(OWN, ASKED), "asked", "what was not done stays asked");
    let kept = secrets.replace(&waiting, &read.version, Some("told")).await.unwrap();
    assert_eq!(kept.notes, Notes { told: Some("told".to_owned()), asked: None });
    let more = secrets.annotate(&kept.version, "more", false).await.unwrap();
    assert_eq!((more.ring, more.notes.told.as_deref()), (waiting, Some("more")));
    assert!(secrets.annotate(&kept.version, "late", false).await.is_err());
}
