//! Routes as in manifests, reduced to the model: the part of a control plane that the rows need, and no more.

use std::time::Duration;

use ambit_route::model::{
    Backend, BackendFault, Backoff, Cors, Filter, Fraction, GrpcMatch, HeaderChange, HttpMatch, Mirror,
    NameMatch, PathChange, PathMatch, Redirect, Retry, Rewrite, Rule, Scheme, Target, Timeouts, ValueMatch,
};
use ambit_route::timeout::parse_duration;
use ambit_types::{ServiceKey, Str};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Finds services, so that references can be resolved.
pub(crate) trait Services {
    /// Whether a service has a port; none if there is no such service.
    fn has_port(&self, service: &str, port: u16) -> Option<bool>;
}

/// What a reference is read in.
pub(crate) struct Scope<'a> {
    pub(crate) services: &'a dyn Services,
    /// Namespace of the route.
    pub(crate) namespace: &'a str,
}

/// Spec of any kind of route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) rules: Vec<RuleSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ParentRef {
    #[serde(default)]
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RuleSpec {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<Value>,
    #[serde(default)]
    filters: Vec<FilterSpec>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    timeouts: Option<TimeoutsSpec>,
    retry: Option<RetrySpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BackendRef {
    #[serde(default)]
    group: String,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
    port: Option<u16>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    filters: Vec<FilterSpec>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TimeoutsSpec {
    request: Option<String>,
    backend_request: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetrySpec {
    attempts: Option<u32>,
    #[serde(default)]
    codes: Vec<u16>,
    backoff: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpMatchSpec {
    path: Option<Typed>,
    method: Option<String>,
    #[serde(default)]
    headers: Vec<Named>,
    #[serde(default, rename = "queryParams")]
    query_params: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcMatchSpec {
    method: Option<GrpcMethodSpec>,
    #[serde(default)]
    headers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcMethodSpec {
    r#type: Option<String>,
    service: Option<String>,
    method: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    r#type: Option<String>,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    r#type: Option<String>,
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FilterSpec {
    r#type: String,
    request_header_modifier: Option<ModifierSpec>,
    response_header_modifier: Option<ModifierSpec>,
    request_redirect: Option<RedirectSpec>,
    url_rewrite: Option<RewriteSpec>,
    request_mirror: Option<MirrorSpec>,
    cors: Option<CorsSpec>,
    extension_ref: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModifierSpec {
    #[serde(default)]
    set: Vec<Named>,
    #[serde(default)]
    add: Vec<Named>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RedirectSpec {
    scheme: Option<String>,
    hostname: Option<String>,
    path: Option<PathSpec>,
    port: Option<u16>,
    status_code: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RewriteSpec {
    hostname: Option<String>,
    path: Option<PathSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PathSpec {
    r#type: String,
    replace_full_path: Option<String>,
    replace_prefix_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MirrorSpec {
    backend_ref: BackendRef,
    percent: Option<u32>,
    fraction: Option<FractionSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FractionSpec {
    numerator: u32,
    denominator: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct CorsSpec {
    allow_origins: Vec<String>,
    allow_methods: Vec<String>,
    allow_headers: Vec<String>,
    expose_headers: Vec<String>,
    allow_credentials: bool,
    max_age: Option<u32>,
}

/// Reads a value as one of the forms above.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value}"))
}

/// A match of a route.
pub(crate) trait FromSpec: Sized {
    /// Reads it.
    fn from_spec(value: &Value) -> Self;
}

impl FromSpec for HttpMatch {
    fn from_spec(value: &Value) -> Self {
        let spec: HttpMatchSpec = read(value);
        let path = spec.path.map(|path| {
            let value: Str = path.value.unwrap_or_else(|| "/".to_owned()).into();
            match path.r#type.as_deref() {
                Some("Exact") => PathMatch::Exact(value),
                Some("RegularExpression") => PathMatch::Regex(value),
                Some("PathPrefix") | None => PathMatch::Prefix(value),
                Some(other) => panic!("path match {other}"),
            }
        });
        let method = spec.method.map(Into::into);
        Self { path, method, headers: named(spec.headers), query: named(spec.query_params) }
    }
}

impl FromSpec for GrpcMatch {
    fn from_spec(value: &Value) -> Self {
        let spec: GrpcMatchSpec = read(value);
        let (kind, service, method) =
            spec.method.map_or((None, None, None), |method| (method.r#type, method.service, method.method));
        let text = |text: Option<String>| text.map(|text| value_match(kind.as_deref(), text));
        Self { service: text(service), method: text(method), headers: named(spec.headers) }
    }
}

fn named(list: Vec<Named>) -> Vec<NameMatch> {
    let one = |entry: Named| NameMatch {
        name: entry.name.into(),
        value: value_match(entry.r#type.as_deref(), entry.value),
    };
    list.into_iter().map(one).collect()
}

fn value_match(kind: Option<&str>, text: String) -> ValueMatch {
    let text: Str = text.into();
    match kind {
        Some("RegularExpression") => ValueMatch::Regex(text),
        Some("Exact") | None => ValueMatch::Exact(text),
        Some(other) => panic!("match {other}"),
    }
}

impl RuleSpec {
    /// The rule in the model.
    pub(crate) fn model<M: FromSpec>(&self, scope: &Scope<'_>) -> Rule<M> {
        Rule {
            name: self.name.as_deref().map(str_of),
            matches: self.matches.iter().map(M::from_spec).collect(),
            filters: self.filters.iter().map(|filter| filter.model(scope)).collect(),
            backends: self.backends(scope),
            timeouts: self.timeouts.as_ref().map_or_else(Timeouts::default, TimeoutsSpec::model),
            retry: self.retry.as_ref().map(RetrySpec::model),
            ..Rule::default()
        }
    }

    /// Its backends in the model.
    pub(crate) fn backends(&self, scope: &Scope<'_>) -> Vec<Backend> {
        self.backend_refs.iter().map(|backend| backend.model(scope)).collect()
    }
}

impl BackendRef {
    fn model(&self, scope: &Scope<'_>) -> Backend {
        let filters = self.filters.iter().map(|filter| filter.model(scope)).collect();
        Backend { target: self.target(scope), weight: self.weight, filters }
    }

    fn target(&self, scope: &Scope<'_>) -> Target {
        let namespace = self.namespace.as_deref().unwrap_or(scope.namespace);
        let name = format!("{namespace}/{}", self.name);
        let invalid = |fault| Target::Invalid { fault, what: name.as_str().into() };
        let is_service = self.group.is_empty() && self.kind.as_deref().is_none_or(|kind| kind == "Service");
        match self.port.and_then(|port| scope.services.has_port(&name, port)) {
            _ if !is_service => invalid(BackendFault::InvalidKind),
            Some(true) => {
                let service = ServiceKey::parse(&name).expect("NAMESPACE/NAME");
                Target::Service { service, port: self.port.expect("looked up by it") }
            }
            Some(false) | None => invalid(BackendFault::BackendNotFound),
        }
    }
}

impl TimeoutsSpec {
    fn model(&self) -> Timeouts {
        let read = |text: &Option<String>| text.as_deref().map(duration);
        Timeouts { request: read(&self.request), backend_request: read(&self.backend_request), idle: None }
    }
}

impl RetrySpec {
    fn model(&self) -> Retry {
        let mut retry = Retry::of_codes(self.attempts.unwrap_or(1), self.codes.clone());
        if let Some(base) = self.backoff.as_deref().map(duration) {
            retry.backoff = Backoff { base, max: base.max(retry.backoff.max) };
        }
        retry
    }
}

/// Reads a duration.
pub(crate) fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap_or_else(|error| panic!("{error}"))
}

impl FilterSpec {
    fn model(&self, scope: &Scope<'_>) -> Filter {
        let filter = match self.r#type.as_str() {
            "RequestHeaderModifier" => {
                self.request_header_modifier.as_ref().map(|m| Filter::RequestHeaders(m.model()))
            }
            "ResponseHeaderModifier" => {
                self.response_header_modifier.as_ref().map(|m| Filter::ResponseHeaders(m.model()))
            }
            "RequestRedirect" => self.request_redirect.as_ref().map(|to| Filter::Redirect(to.model())),
            "URLRewrite" => self.url_rewrite.as_ref().map(|to| Filter::Rewrite(to.model())),
            "RequestMirror" => self.request_mirror.as_ref().map(|mirror| Filter::Mirror(mirror.model(scope))),
            "CORS" => self.cors.as_ref().map(|cors| Filter::Cors(cors.model())),
            "ExtensionRef" => {
                let what = self.extension_ref.as_ref().map(|reference| format!("ExtensionRef {reference}"));
                what.map(|what| Filter::Unsupported { what: what.into() })
            }
            other => Some(Filter::Unsupported { what: other.into() }),
        };
        filter.unwrap_or_else(|| panic!("a filter without its field: {self:?}"))
    }
}

impl ModifierSpec {
    fn model(&self) -> HeaderChange {
        let pairs = |list: &[Named]| list.iter().map(|h| (str_of(&h.name), str_of(&h.value))).collect();
        HeaderChange { set: pairs(&self.set), add: pairs(&self.add), remove: strs(&self.remove) }
    }
}

impl RedirectSpec {
    fn model(&self) -> Redirect {
        let scheme = self.scheme.as_deref().map(|scheme| match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => panic!("scheme {other}"),
        });
        let (hostname, path) =
            (self.hostname.as_deref().map(str_of), self.path.as_ref().map(PathSpec::model));
        Redirect { scheme, hostname, path, port: self.port, status: self.status_code }
    }
}

impl RewriteSpec {
    fn model(&self) -> Rewrite {
        Rewrite {
            hostname: self.hostname.as_deref().map(str_of),
            path: self.path.as_ref().map(PathSpec::model),
        }
    }
}

impl PathSpec {
    fn model(&self) -> PathChange {
        let text = |text: &Option<String>| Str::from(text.as_deref().unwrap_or_default());
        match self.r#type.as_str() {
            "ReplaceFullPath" => PathChange::Full(text(&self.replace_full_path)),
            "ReplacePrefixMatch" => PathChange::Prefix(text(&self.replace_prefix_match)),
            other => panic!("path change {other}"),
        }
    }
}

impl MirrorSpec {
    fn model(&self, scope: &Scope<'_>) -> Mirror {
        let share = self.fraction.as_ref().map(|fraction| {
            let denominator = fraction.denominator.unwrap_or(100);
            Fraction { numerator: fraction.numerator, denominator }
        });
        let fraction = share.or_else(|| self.percent.map(Fraction::percent)).unwrap_or(Fraction::ALL);
        Mirror { target: self.backend_ref.target(scope), fraction }
    }
}

impl CorsSpec {
    fn model(&self) -> Cors {
        Cors {
            allow_origins: strs(&self.allow_origins),
            allow_methods: strs(&self.allow_methods),
            allow_headers: strs(&self.allow_headers),
            expose_headers: strs(&self.expose_headers),
            allow_credentials: self.allow_credentials,
            max_age_seconds: self.max_age,
        }
    }
}

fn str_of(text: &str) -> Str {
    text.into()
}

/// Texts as the model has them.
pub(crate) fn strs(list: &[String]) -> Vec<Str> {
    list.iter().map(|text| str_of(text)).collect()
}
