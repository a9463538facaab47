//! What browsers are told about pages of other origins (HTTPCORSFilter, WHATWG Fetch section 3.3).
//!
//! The policy speaks for the application: what the application itself says on the subject is taken away.

mod origin;

use std::fmt::Write;

pub use origin::OriginError;
use origin::Origins;

use super::Head;
use super::headers::is_token;
use crate::model::Cors;
use crate::request::{Headers, Request};

/// For how many seconds a browser may keep a preflight answer, if the filter does not say.
const MAX_AGE_SECONDS: u32 = 5;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";
const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";
const VARY: &str = "vary";

/// A compiled CORS filter.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    origins: Origins,
    methods: Names,
    headers: Names,
    exposed: Names,
    credentials: bool,
    max_age_seconds: u32,
}

/// The answer to a preflight request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    /// 204 with these headers. Whether method and headers suffice is judged by the browser, which reads the lists.
    Granted(Vec<(&'static str, String)>),
    /// 403 without any: the origin is not one that may call.
    Refused,
}

/// What is wrong with a CORS filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorsError {
    /// An origin.
    #[error("origin {text:?}: {cause}")]
    Origin {
        /// As written.
        text: String,
        /// What about it.
        cause: OriginError,
    },
    /// A method or header name.
    #[error("{text:?} is neither a name nor \"*\"")]
    Name {
        /// As written.
        text: String,
    },
}

/// A list of names, or any.
#[derive(Debug, Clone)]
struct Names {
    any: bool,
    /// Joined by commas.
    text: String,
}

impl CorsPolicy {
    /// Compiles a filter.
    ///
    /// # Errors
    /// [`CorsError`] for the first origin or name that cannot be read.
    pub(crate) fn compile(cors: &Cors) -> Result<Self, CorsError> {
        Ok(Self {
            origins: Origins::compile(&cors.allow_origins)?,
            methods: Names::compile(&cors.allow_methods)?,
            headers: Names::compile(&cors.allow_headers)?,
            exposed: Names::compile(&cors.expose_headers)?,
            credentials: cors.allow_credentials,
            max_age_seconds: cors.max_age_seconds.unwrap_or(MAX_AGE_SECONDS),
        })
    }

    /// The answer, if this is a preflight request: OPTIONS with an origin and the method it asks for.
    pub fn preflight<H: Headers + ?Sized>(&self, request: &Request<'_, H>) -> Option<Preflight> {
        if request.method != "OPTIONS" {
            return None;
        }
        let method = only(request.headers, REQUEST_METHOD)?;
        let origin = only(request.headers, "origin")?;
        let Some(allowed) = self.allowed_origin(origin) else { return Some(Preflight::Refused) };
        let wanted = only(request.headers, REQUEST_HEADERS);
        let mut answer = vec![(ALLOW_ORIGIN, allowed)];
        answer.extend(self.methods.granted(self.credentials, Some(method)).map(|v| (ALLOW_METHODS, v)));
        answer.extend(self.headers.granted(self.credentials, wanted).map(|v| (ALLOW_HEADERS, v)));
        if self.credentials {
            answer.push((ALLOW_CREDENTIALS, "true".to_owned()));
        }
        answer.push((MAX_AGE, self.max_age_seconds.to_string()));
        answer.push((VARY, format!("origin, {REQUEST_METHOD}, {REQUEST_HEADERS}")));
        Some(Preflight::Granted(answer))
    }

    /// Marks the response to any other request. `names` are the headers the response has, in lower case: where all
    /// are exposed to requests with credentials they have to be listed.
    pub fn mark<'a, H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        names: impl Iterator<Item = &'a str>,
        response: &mut impl Head,
    ) {
        let exposed = if self.exposed.any && self.credentials {
            listed(names)
        } else {
            self.exposed.granted(false, None)
        };
        for name in [ALLOW_ORIGIN, ALLOW_METHODS, ALLOW_HEADERS, ALLOW_CREDENTIALS, EXPOSE_HEADERS, MAX_AGE] {
            response.remove(name);
        }
        if !self.origins.any || self.credentials {
            response.add(VARY, "origin");
        }
        let Some(allowed) = only(request.headers, "origin").and_then(|o| self.allowed_origin(o)) else {
            return;
        };
        response.set(ALLOW_ORIGIN, &allowed);
        if self.credentials {
            response.set(ALLOW_CREDENTIALS, "true");
        }
        if let Some(exposed) = exposed {
            response.set(EXPOSE_HEADERS, &exposed);
        }
    }

    /// What `Access-Control-Allow-Origin` says to this origin.
    fn allowed_origin(&self, origin: &str) -> Option<String> {
        if self.origins.any && !self.credentials {
            return Some("*".to_owned());
        }
        self.origins.admits(origin).then(|| origin.to_owned())
    }
}

impl Names {
    fn compile(names: &[ambit_types::Str]) -> Result<Self, CorsError> {
        if let Some(name) = names.iter().find(|name| &***name != "*" && !is_token(name)) {
            return Err(CorsError::Name { text: name.to_string() });
        }
        let any = names.iter().any(|name| &**name == "*");
        Ok(Self { any, text: names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ") })
    }

    /// The list as a header's value; none if it is empty. With credentials a star would be read as a name, so that
    /// what was asked for is repeated in its place.
    fn granted(&self, credentials: bool, asked: Option<&str>) -> Option<String> {
        match (self.any, credentials) {
            (true, true) => asked.map(str::to_owned),
            (true, false) => Some("*".to_owned()),
            (false, _) => (!self.text.is_empty()).then(|| self.text.clone()),
        }
    }
}

/// The value of a header that is there once, as text.
fn only<'a, H: Headers + ?Sized>(headers: &'a H, name: &'a str) -> Option<&'a str> {
    let mut lines = headers.lines(name);
    let first = std::str::from_utf8(lines.next()?).ok()?;
    lines.next().is_none().then_some(first)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = String::new();
    for name in names.filter(|name| !name.starts_with("access-control-") && *name != "set-cookie") {
        let comma = if all.is_empty() { "" } else { ", " };
        write!(all, "{comma}{name}").expect("writing to a String cannot fail");
    }
    (!all.is_empty()).then_some(all)
}
