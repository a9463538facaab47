//! What the control plane of a cluster has gathered, asked through the API server: `ambit flows`, `edges` and others with
//! nothing but a kubeconfig.
//!
//! The API server passes a request on to a pod for who may `get pods/proxy`. It takes `Authorization` out, which was meant
//! for itself, so the console's token stands in a header of its own. A replica knows only the proxies that attend it: all
//! that are ready are asked, and one that is silent is told and hides no other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ambit_kube::resource::Resource;
use ambit_kube::write::{self, Target};
use ambit_kube::{Call, KubeError};
use ambit_manifest::Kind;
use ambit_runtime::flows::Filter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::{HeaderValue, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::flows::Records;
use super::nodes::{silent, text};
use super::place::failure;
use crate::out::{self, Failure};

mod follow;
mod merge;
mod replicas;

use replicas::{Replica, chosen};

/// The Secret with the token, in the control plane's namespace, and its key.
const SECRET: &str = "ambit-console";
const KEY: &str = "token";
/// The header that an API server passes on.
const TOKEN: &str = "x-ambit-console-token";
/// Labels of the control plane's pods.
const LABELS: &str = "app.kubernetes.io/name=istiod-lite";
/// Longest wait for one answer: proxies are asked meanwhile.
const ANSWER: Duration = Duration::from_secs(30);
/// Records of each proxy that a replica hands out at most.
const LAST_MAX: usize = 100_000;

/// A cluster's control plane, as somebody with a kubeconfig reaches it.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    token: HeaderValue,
}

/// What the replicas answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The answers, each with the name of its replica.
    pub(crate) told: Vec<(String, Value)>,
    /// Names of the replicas that are not ready or silent, so that what only they know is missing; in order.
    pub(crate) missing: Vec<String>,
}

/// The query that picks records, in the words of the API.
pub(crate) type Query = BTreeMap<String, String>;

/// A filter as a query, and of one node if only that is meant.
pub(crate) fn query(filter: &Filter, node: Option<&str>) -> Query {
    let mut query = filter.query().clone();
    query.extend(node.map(|node| ("node".to_owned(), node.to_owned())));
    query
}

impl Cluster {
    /// The control plane in `namespace`, with the token of a file, else that of the Secret.
    ///
    /// # Errors
    /// When there is no token that could be shown, with what to type.
    pub(crate) async fn of(client: Client, namespace: &str, file: Option<&Path>) -> anyhow::Result<Self> {
        let token = match file {
            Some(file) => std::fs::read(file).map_err(|error| {
                Failure::new(out::BAD_DATA, format!("reading the token in {}: {error}", file.display()))
            })?,
            None => secret(&client, namespace).await?,
        };
        let mut token = HeaderValue::from_bytes(token.trim_ascii())
            .map_err(|_| Failure::new(out::BAD_DATA, "the console's token is no text of one line"))?;
        token.set_sensitive(true);
        Ok(Self { client, namespace: namespace.to_owned(), token })
    }

    /// Records of every proxy that pass, oldest first, each once; what is missing is told.
    ///
    /// # Errors
    /// When no replica answers.
    pub(super) async fn flows(&self, query: &Query, last: usize) -> anyhow::Result<Records> {
        let mut query = query.clone();
        query.insert("last".to_owned(), last.min(LAST_MAX).to_string());
        let Answers { told: answers, missing } =
            self.ask_all(&format!("/api/v1/flows?{}", encoded(&query))).await?;
        for (replica, answer) in &answers {
            if let Some(count) = answer["left_out"].as_u64().filter(|count| *count > 0) {
                out::say(&format!(
                    "warning: {count} older records are left out, for which the answer of {replica} had no room"
                ));
            }
            for why in answer["incomplete"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                out::say(&format!("warning: {why}; its records are missing here ({replica})"));
            }
        }
        let memory = answers.iter().map(|(_, told)| json!({"lost": told["lost"], "oldest": told["oldest"]}));
        let memory = memory.collect();
        Ok(Records { records: records(answers.into_iter().map(|(_, answer)| answer)), memory, missing })
    }

    /// Edges of the last `window`, those of one pair and port added up.
    ///
    /// # Errors
    /// When no replica answers.
    pub(crate) async fn edges(&self, window: Duration) -> anyhow::Result<Vec<Value>> {
        let what = format!("/api/v1/edges?by=side&window={}s", window.as_secs().max(1));
        let answers = self.ask_all(&what).await?.told;
        let left_out: u64 = answers.iter().filter_map(|(_, answer)| answer["left_out"].as_u64()).sum();
        if left_out > 0 {
            out::say(&format!("warning: {left_out} edges are left out, for which an answer had no room"));
        }
        let items = answers.into_iter().flat_map(|(_, answer)| items(answer));
        Ok(merge::edges(items))
    }

    /// Asks every replica that is ready the same, side by side; a silent one is told and left out, as is one that is not
    /// ready.
    ///
    /// # Errors
    /// When no replica is ready, or none answers.
    pub(crate) async fn ask_all(&self, what: &str) -> anyhow::Result<Answers> {
        let (replicas, mut missing) = self.replicas().await?;
        let asked = replicas.iter().map(|replica| async move { (replica, self.ask(replica, what).await) });
        let (mut told, mut codes) = (Vec::new(), Vec::new());
        for (replica, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => told.push((replica.name.clone(), answer)),
                Err(error) => {
                    codes.push(error.code);
                    missing.push(replica.name.clone());
                    out::say(&format!("warning: {}", silent(&replica.name, &error.into())));
                }
            }
        }
        if told.is_empty() {
            let is_refused = codes.iter().all(|code| *code == out::FAILED);
            let code = if is_refused { out::FAILED } else { out::UNREACHABLE };
            let words = "no replica of the control plane answers us; see: ambit check";
            return Err(Failure::new(code, words).into());
        }
        missing.sort();
        Ok(Answers { told, missing })
    }

    /// The replicas that are ready, and the names of those that are not, which are told.
    async fn replicas(&self) -> anyhow::Result<(Vec<Replica>, Vec<String>)> {
        let (ready, others) = self.found().await?;
        for name in &others {
            out::say(&format!("warning: {name} is not ready, so what only it knows is missing here"));
        }
        Ok((ready, others))
    }

    /// The replicas that are ready, and the names of those that are not.
    async fn found(&self) -> anyhow::Result<(Vec<Replica>, Vec<String>)> {
        let pods = Target::new("v1", "Pod", Some(&self.namespace), "")?;
        let pods = write::list(&self.client, &pods, Some(LABELS), None).await;
        let (ready, others) = chosen(&pods.map_err(|error| failure(&error))?);
        if ready.is_empty() {
            let words = format!(
                "no pod of istiod-lite is ready in namespace {}; see: ambit status (--root-namespace names another one)",
                self.namespace
            );
            return Err(Failure::new(out::UNREACHABLE, words).into());
        }
        Ok((ready, others))
    }

    async fn ask(&self, replica: &Replica, what: &str) -> Result<Value, Failure> {
        let request = self.request(replica, what)?;
        match timeout(ANSWER, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(|error| self.refused(replica, error)),
            Err(_) => Err(Failure::new(out::UNREACHABLE, format!("no answer within {ANSWER:?}"))),
        }
    }

    /// A request that the API server passes on to a replica.
    fn request(&self, replica: &Replica, what: &str) -> Result<Request<Vec<u8>>, Failure> {
        let request = Request::get(format!("{}{what}", replica.proxied(&self.namespace)));
        let request = request.header(TOKEN, self.token.clone()).body(Vec::new());
        request.map_err(|error| Failure::new(out::FAILED, format!("asking {}: {error}", replica.name)))
    }

    /// What a refusal means: pods were listed with these credentials, so an unknown caller is one with the wrong token.
    fn refused(&self, replica: &Replica, error: kube::Error) -> Failure {
        let pod = Resource::of_kind(Kind::Pod, "v1");
        let call = Call::new("get", &pod, Some(&self.namespace), Some(&replica.name)).part("proxy");
        let error = KubeError::of(&call, error);
        if error.status() == Some(401) {
            let words = format!(
                "it does not take the token; a change of Secret {}/{SECRET} reaches its pods within some two minutes",
                self.namespace
            );
            return Failure::new(out::FAILED, words);
        }
        failure(&error)
    }
}

/// The token of the Secret.
async fn secret(client: &Client, namespace: &str) -> anyhow::Result<Vec<u8>> {
    let target = Target::new("v1", "Secret", Some(namespace), SECRET)?;
    let found = match write::get(client, &target).await {
        Ok(found) => found,
        Err(error @ KubeError::Forbidden { .. }) => {
            let words = format!("{error}; or name a file with the token by --console-token-file");
            return Err(Failure::new(out::FAILED, words).into());
        }
        Err(error) => return Err(failure(&error).into()),
    };
    let Some(found) = found else {
        let words = format!(
            "nobody may read what the mesh saw yet: there is no Secret {namespace}/{SECRET}; make one: openssl rand -hex \
             32 | kubectl create secret generic {SECRET} -n {namespace} --from-file={KEY}=/dev/stdin"
        );
        return Err(Failure::new(out::FAILED, words).into());
    };
    let token = found["data"][KEY].as_str().and_then(|text| STANDARD.decode(text).ok());
    token.ok_or_else(|| {
        Failure::new(out::FAILED, format!("the Secret {namespace}/{SECRET} has no key {KEY}")).into()
    })
}

/// The items of an answer; what is no object is none.
pub(super) fn items(mut answer: Value) -> Vec<Value> {
    let items = answer.get_mut("items").and_then(Value::as_array_mut);
    let mut items = items.map(std::mem::take).unwrap_or_default();
    items.retain(Value::is_object);
    items
}

/// The records of all answers, oldest first. A proxy that goes from one replica to another is asked by both, and tells
/// the same twice.
fn records(answers: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut all: Vec<Value> = answers.flat_map(items).collect();
    all.sort_by_cached_key(|record| (text(record, "time"), record.to_string()));
    all.dedup();
    all
}

/// A query as a request has it.
fn encoded(query: &Query) -> String {
    let pairs = query.iter().map(|(key, value)| format!("{}={}", percent(key), percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_two_replicas_tell_stands_once_and_time_orders() {
        let record = |time: &str, id: &str| json!({"time": time, "conn_id": id});
        let one =
            json!({"items": [record("2026-01-01T00:00:02Z", "b"), record("2026-01-01T00:00:03Z", "c")]});
        let other =
            json!({"items": [record("2026-01-01T00:00:01Z", "a"), record("2026-01-01T00:00:02Z", "b")]});
        let all = records([one, other, json!({})].into_iter());
        let ids: Vec<String> = all.iter().map(|record| text(record, "conn_id")).collect();
        assert_eq!(ids, ["a", "b", "c"]);
    }

    #[test]
    fn an_answer_of_another_shape_has_no_items() {
        for answer in [json!([1]), json!("x"), json!(7), json!(null), json!({"items": {"a": 1}})] {
            assert_eq!(items(answer.clone()), Vec::<Value>::new(), "{answer}");
        }
        assert_eq!(items(json!({"items": [1, "x", [], null, {"id": "a"}]})), [json!({"id": "a"})]);
    }

    #[test]
    fn a_query_keeps_what_its_values_hold() {
        let filter = [("from-identity", "spiffe://m/ns/a&b=c/sa/*"), ("id", "ab cd%")];
        let filter: Query = filter.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let want = "from-identity=spiffe%3A%2F%2Fm%2Fns%2Fa%26b%3Dc%2Fsa%2F%2A&id=ab%20cd%25";
        assert_eq!(encoded(&filter), want);
    }
}
