//! Requests of rows, as a client sends them and as filters change them.

use ambit_policy::normalize::{Options, Received, normalize};
use ambit_route::filter;
use ambit_route::model::Scheme;
use ambit_route::{Request, split_target};
use serde_json::Value;

use crate::schema::Sent;

/// A request that a client sends.
pub(crate) struct Held {
    method: String,
    target: String,
    host: String,
    port: u16,
    lines: Vec<(String, String)>,
}

/// The head of a request or response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) host: String,
    path: String,
    query: Option<String>,
    pub(crate) lines: Vec<(String, String)>,
}

impl Held {
    /// Fills in what the row leaves out.
    pub(crate) fn new(sent: &Sent, service: &str, port: u16) -> Self {
        let mut lines = Vec::new();
        for (name, value) in &sent.headers {
            let one = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
            let values: Vec<String> =
                value.as_array().map_or_else(|| vec![one(value)], |v| v.iter().map(one).collect());
            lines.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        if sent.grpc.is_some() {
            lines.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        let call = sent.grpc.as_ref().map(|call| format!("/{call}"));
        let default_method = if call.is_some() { "POST" } else { "GET" };
        Self {
            method: sent.method.as_deref().unwrap_or(default_method).to_owned(),
            target: read(&call.or_else(|| sent.path.clone()).unwrap_or_else(|| "/".to_owned())),
            host: sent.host.clone().unwrap_or_else(|| service.to_owned()),
            port,
            lines,
        }
    }

    /// With one more line.
    pub(crate) fn and(mut self, line: Option<(String, String)>) -> Self {
        self.lines.extend(line);
        self
    }

    /// What routing sees of it.
    pub(crate) fn request(&self) -> Request<'_, Vec<(String, String)>> {
        let (path, query) = split_target(&self.target);
        Request {
            method: &self.method,
            scheme: Scheme::Http,
            authority: &self.host,
            port: self.port,
            path,
            query,
            headers: &self.lines,
        }
    }

    /// Its head, to be changed.
    pub(crate) fn head(&self) -> Head {
        let (path, query) = split_target(&self.target);
        let lines = self.lines.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let (path, query) = (path.to_owned(), query.map(str::to_owned));
        Head { host: self.host.clone(), path, query, lines: lines.collect() }
    }
}

/// Path and query in the form in which routing sees them and in which they go upstream.
fn read(target: &str) -> String {
    let received =
        Received { method: b"GET", hosts: &[b"web"], path: Some(target.as_bytes()), ..Received::default() };
    let read = normalize(&received, &Options::default());
    let read = read.unwrap_or_else(|refusal| panic!("no request has the target {target}: {refusal:?}"));
    String::from_utf8(read.path_and_query())
        .expect("a target with one reading is ASCII, its query is of a table")
}

impl Head {
    /// Path and query.
    pub(crate) fn target(&self) -> String {
        self.query.as_ref().map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    /// The lines of one name joined by commas, as the conformance tests compare them; none if there are none.
    pub(crate) fn joined(&self, name: &str) -> Option<String> {
        let named = self.lines.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

impl filter::Head for Head {
    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.lines.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.lines.retain(|(n, _)| n != name);
    }
}

impl filter::RequestHead for Head {
    fn path(&self) -> &str {
        &self.path
    }

    fn set_path(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }
}
