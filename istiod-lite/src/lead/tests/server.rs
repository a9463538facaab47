//! A script that stands for an API server: objects by path, apply and status, refusals, and answers that never come.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longest wait for something to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// The script.
#[derive(Debug)]
pub(super) struct Script {
    state: Mutex<State>,
    calls: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Objects by path.
    pub(super) objects: BTreeMap<String, Value>,
    /// Every call: method, path and query.
    pub(super) log: Vec<String>,
    /// Calls whose line contains the text are refused with a status and words.
    pub(super) refused: Vec<(String, u16, String)>,
    /// Calls whose line contains one of these are never answered; each holds this until it is dropped.
    pub(super) silent: Option<(String, Arc<()>)>,
    /// Collections that are not served, by plural.
    pub(super) unserved: BTreeSet<String>,
    count: u64,
}

impl Script {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), calls: watch::Sender::new(0) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// An object at its path, if it is there.
    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Puts an object there as somebody else would.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state();
        state.stamp(&mut object);
        state.objects.insert(path.to_owned(), object);
    }

    /// How many calls change something.
    pub(super) fn writes(&self) -> usize {
        self.state().log.iter().filter(|line| !line.starts_with("GET ")).count()
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let mut calls = self.calls.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&self.state()) {
                calls.changed().await.expect("the script lives as long as the test");
            }
        });
        if waited.await.is_err() {
            let state = self.state();
            panic!("never: {what}\n{}\n{:#?}", state.log.join("\n"), state.objects);
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let line = format!("{} {}", head.method, head.uri);
        let body = body.collect_bytes().await.expect("a body of bytes");
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let silent = self.state().silent.clone().filter(|(text, _)| line.contains(text.as_str()));
        let (code, answer) = match silent {
            None => self.state().answer(&line, &head.method, head.uri.path(), head.uri.query(), &body),
            Some((_, held)) => {
                self.state().log.push(line);
                self.calls.send_modify(|count| *count += 1);
                std::future::pending::<()>().await;
                drop(held);
                (500, Value::Null)
            }
        };
        self.calls.send_modify(|count| *count += 1);
        let text =
            if answer.is_null() { b"404 page not found".to_vec() } else { answer.to_string().into_bytes() };
        let status = StatusCode::from_u16(code).expect("a status");
        Response::builder().status(status).body(Body::from(text)).expect("a response")
    }
}

impl State {
    fn answer(
        &mut self,
        line: &str,
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: &Value,
    ) -> (u16, Value) {
        self.log.push(line.to_owned());
        if let Some((_, code, words)) = self.refused.iter().find(|(text, ..)| line.contains(text.as_str())) {
            return (*code, failure(*code, "Refused", words));
        }
        if self.unserved.iter().any(|plural| path.split('/').any(|part| part == plural)) {
            return (404, Value::Null);
        }
        let (item, is_status) = match path.strip_suffix("/status") {
            Some(item) => (item, true),
            None => (path, false),
        };
        match *method {
            Method::GET if self.objects.contains_key(path) => (200, self.objects[path].clone()),
            Method::GET if is_collection(path) => (200, self.list(path, query.unwrap_or_default())),
            Method::PATCH if is_status => self.status(item, body),
            Method::PATCH => (200, self.apply(item, body)),
            Method::POST => self.create(path, body),
            Method::DELETE if self.objects.remove(path).is_some() => (200, json!({"kind": "Status"})),
            _ => (404, failure(404, "NotFound", &format!("{path} not found"))),
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let (root, plural) = path.rsplit_once('/').unwrap_or_default();
        let of_kind = |at: &String| at.starts_with(root) && at.rsplit('/').nth(1) == Some(plural);
        let is_wanted = |object: &Value| match query.split_once("labelSelector=") {
            None => true,
            Some((_, selector)) => {
                let selector = selector.replace("%2F", "/").replace("%3D", "=");
                let (key, value) = selector.split_once('=').unwrap_or_default();
                object.pointer("/metadata/labels").is_some_and(|labels| labels[key] == value)
            }
        };
        let named = query.split_once("metadata.name%3D").map(|(_, name)| format!("/{name}"));
        let is_named = |at: &String| named.as_ref().is_none_or(|name| at.ends_with(name.as_str()));
        let found =
            self.objects.iter().filter(|(at, object)| of_kind(at) && is_named(at) && is_wanted(object));
        json!({"kind": "List", "metadata": {}, "items": found.map(|(_, object)| object).collect::<Vec<_>>()})
    }

    fn apply(&mut self, path: &str, body: &Value) -> Value {
        let mut object = self.objects.get(path).cloned().unwrap_or_else(|| json!({}));
        let spec = object.get("spec").cloned();
        let counted = object.pointer("/metadata/managedFields/0/fieldsV1/f:spec/f:replicas").is_some();
        merge(&mut object, body);
        // Of what one owns alone and says no more, the default is left; only this field is kept book of.
        let counts = body.pointer("/spec/replicas").is_some();
        if counted && !counts {
            object["spec"]["replicas"] = json!(1);
        }
        let fields = if counts { json!({"f:spec": {"f:replicas": {}}}) } else { json!({}) };
        let owner = json!({"manager": "ambit-istiod", "operation": "Apply", "fieldsV1": fields});
        object["metadata"]["managedFields"] = json!([owner]);
        if object.get("spec").cloned() != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        self.stamp(&mut object);
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn status(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return (404, failure(404, "NotFound", &format!("{path} not found")));
        };
        let version = &body["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return (409, failure(409, "Conflict", "the object has been modified"));
        }
        for (field, value) in body["status"].as_object().into_iter().flatten() {
            object["status"][field] = value.clone();
        }
        self.stamp(&mut object);
        self.objects.insert(path.to_owned(), object.clone());
        (200, object)
    }

    fn create(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let at = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&at) {
            return (409, failure(409, "AlreadyExists", "it is there"));
        }
        let mut object = body.clone();
        self.stamp(&mut object);
        self.objects.insert(at, object.clone());
        (201, object)
    }

    fn stamp(&mut self, object: &mut Value) {
        self.count += 1;
        object["metadata"]["resourceVersion"] = json!(self.count.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.count));
        }
    }
}

fn is_collection(path: &str) -> bool {
    // The last part of an object's path is its name; the plurals asked for are none of those.
    let last = path.rsplit('/').next().unwrap_or_default();
    last.ends_with('s') && !path.contains("/namespaces/") && path.split('/').count() <= 5
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message, "details": {"name": "x"},
    })
}

fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(into), Some(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = from.clone(),
    }
}
