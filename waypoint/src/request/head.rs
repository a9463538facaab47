//! The head of a request on its way: what routing reads, filters change and an endpoint gets.

use ambit_policy::http as policy;
use ambit_route::filter::{Head as Changes, RequestHead};
use ambit_route::model::Scheme;
use ambit_route::{Headers, Request, split_target};
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version};

use super::body::Upload;
use crate::observe::trace::Trail;

/// Header lines, as policies and routes read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(pub(crate) HeaderMap);

impl Headers for Fields {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl policy::Headers for Fields {
    fn each(&self, name: &str, line: &mut dyn FnMut(&[u8])) {
        self.0.get_all(name).iter().for_each(|value| line(value.as_bytes()));
    }
}

impl Changes for Fields {
    fn set(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = line(name, value) {
            self.0.insert(name, value);
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = line(name, value) {
            self.0.append(name, value);
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// A header line of texts that were checked when they were configured.
fn line(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
}

/// The head of a request: one reading of its target, and header lines that may go on.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    /// Host, with a port if the client wrote one.
    pub(crate) authority: String,
    /// Path and query as they were judged, and go on.
    pub(crate) target: String,
    pub(crate) fields: Fields,
    /// The trace it belongs to.
    pub(crate) trail: Trail,
    /// Port of the service that was called.
    pub(crate) port: u16,
}

impl Head {
    /// As routes read it.
    pub(crate) fn view(&self) -> Request<'_, Fields> {
        let (path, query) = split_target(&self.target);
        Request {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: &self.authority,
            port: self.port,
            path,
            query,
            headers: &self.fields,
        }
    }

    /// As an endpoint gets it; none if a filter made a target of it that is none.
    pub(crate) fn request(&self, is_http2: bool, body: Upload) -> Option<http::Request<Upload>> {
        let mut headers = self.fields.0.clone();
        self.trail.write(&mut headers);
        let target =
            PathAndQuery::from_maybe_shared(bytes::Bytes::copy_from_slice(self.target.as_bytes())).ok()?;
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        if is_http2 {
            *request.version_mut() = Version::HTTP_2;
            let uri = Uri::builder().scheme("http").authority(self.authority.as_str()).path_and_query(target);
            *request.uri_mut() = uri.build().ok()?;
        } else {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = Uri::from(target);
            headers.insert(HOST, HeaderValue::from_str(&self.authority).ok()?);
        }
        *request.headers_mut() = headers;
        Some(request)
    }
}

impl Changes for Head {
    fn set(&mut self, name: &str, value: &str) {
        self.fields.set(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.fields.add(name, value);
    }

    fn remove(&mut self, name: &str) {
        self.fields.remove(name);
    }
}

impl RequestHead for Head {
    fn path(&self) -> &str {
        split_target(&self.target).0
    }

    fn set_path(&mut self, path: &str) {
        let query = split_target(&self.target).1;
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        self.target = target;
    }

    fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.authority);
    }
}
