//! HTTPRoute, GRPCRoute, TLSRoute and TCPRoute.

use super::bodies;

bodies! {
    /// The body of an `HTTPRoute`.
    HttpRoute {
        /// What it attaches to.
        parent_refs: Vec<ParentRef>,
        /// Host names; a mesh does not match by them (GEP-1294).
        hostnames: Vec<String>,
        /// Its rules.
        rules: Vec<HttpRule>,
    }

    /// The body of a `GRPCRoute`.
    GrpcRoute {
        /// What it attaches to.
        parent_refs: Vec<ParentRef>,
        /// Host names; a mesh does not match by them.
        hostnames: Vec<String>,
        /// Its rules.
        rules: Vec<GrpcRule>,
    }

    /// The body of a `TLSRoute`.
    TlsRoute {
        /// What it attaches to.
        parent_refs: Vec<ParentRef>,
        /// Server names, exact or `*.example.com`.
        hostnames: Vec<String>,
        /// Its rules; the API allows one.
        rules: Vec<StreamRule>,
    }

    /// The body of a `TCPRoute`.
    TcpRoute {
        /// What it attaches to.
        parent_refs: Vec<ParentRef>,
        /// Its rules; the API allows one.
        rules: Vec<StreamRule>,
    }

    /// What a route attaches to.
    ParentRef {
        /// Group of the kind; absent means the Gateway API's, empty means core.
        group: Option<String>,
        /// Its kind; absent means Gateway.
        kind: Option<String>,
        /// Its namespace; absent means the route's.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Name of a listener or of a service's port.
        section_name: Option<String>,
        /// Number of a port.
        port: Option<i64>,
    }

    /// A rule of an HTTPRoute.
    HttpRule {
        /// Its name.
        name: Option<String>,
        /// Any of these; none means everything.
        matches: Vec<HttpMatch>,
        /// What it changes.
        filters: Vec<Filter>,
        /// Where requests go.
        backend_refs: Vec<BackendRef>,
        /// How long things may take.
        timeouts: Option<Timeouts>,
        /// When to try again (GEP-1731).
        retry: Option<Retry>,
        /// How a client stays with an endpoint (GEP-1619).
        session_persistence: Option<SessionPersistence>,
    }

    /// A rule of a GRPCRoute.
    GrpcRule {
        /// Its name.
        name: Option<String>,
        /// Any of these; none means everything.
        matches: Vec<GrpcMatch>,
        /// What it changes.
        filters: Vec<Filter>,
        /// Where calls go.
        backend_refs: Vec<BackendRef>,
        /// How a client stays with an endpoint (GEP-1619).
        session_persistence: Option<SessionPersistence>,
    }

    /// A rule of a TLSRoute or TCPRoute.
    StreamRule {
        /// Its name.
        name: Option<String>,
        /// Where connections go.
        backend_refs: Vec<BackendRef>,
    }

    /// What a request must be like; all fields given must agree.
    HttpMatch {
        /// Its path.
        path: Option<PathMatch>,
        /// Its headers.
        headers: Vec<NamedMatch>,
        /// Its query parameters.
        query_params: Vec<NamedMatch>,
        /// Its method.
        method: Option<String>,
    }

    /// How a path is compared.
    PathMatch {
        /// `Exact`, `PathPrefix` (the default) or `RegularExpression`.
        r#type: Option<String>,
        /// The path; absent means `/`.
        value: Option<String>,
    }

    /// How a header or query parameter is compared.
    NamedMatch {
        /// `Exact` (the default) or `RegularExpression`.
        r#type: Option<String>,
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    }

    /// What a call must be like.
    GrpcMatch {
        /// What is called.
        method: Option<GrpcMethod>,
        /// Its headers.
        headers: Vec<NamedMatch>,
    }

    /// A gRPC service, method or both.
    GrpcMethod {
        /// `Exact` (the default) or `RegularExpression`.
        r#type: Option<String>,
        /// Full name of the service.
        service: Option<String>,
        /// Name of the method.
        method: Option<String>,
    }

    /// One change, or an answer; the field that belongs to the type is given.
    Filter {
        /// `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestMirror`, `RequestRedirect`, `URLRewrite`,
        /// `CORS` or `ExtensionRef`.
        r#type: String,
        /// For its type.
        request_header_modifier: Option<HeaderModifier>,
        /// For its type.
        response_header_modifier: Option<HeaderModifier>,
        /// For its type.
        request_mirror: Option<Mirror>,
        /// For its type.
        request_redirect: Option<Redirect>,
        /// For its type.
        url_rewrite: Option<Rewrite>,
        /// For its type.
        cors: Option<Cors>,
        /// For its type.
        extension_ref: Option<super::LocalRef>,
    }

    /// Headers to set, add and remove.
    HeaderModifier {
        /// Replaces every line of the name.
        set: Vec<Header>,
        /// Adds a line.
        add: Vec<Header>,
        /// Takes every line of the name away.
        remove: Vec<String>,
    }

    /// A header with its value.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    }

    /// A copy of requests.
    Mirror {
        /// Where to.
        backend_ref: ObjectRef,
        /// Of how many of a hundred requests.
        percent: Option<i64>,
        /// Of how many requests.
        fraction: Option<Fraction>,
    }

    /// A share.
    Fraction {
        /// So many
        numerator: i64,
        /// of so many; absent means 100.
        denominator: Option<i64>,
    }

    /// An answer with another address.
    Redirect {
        /// `http` or `https`.
        scheme: Option<String>,
        /// Host name.
        hostname: Option<String>,
        /// Path.
        path: Option<PathModifier>,
        /// Port.
        port: Option<i64>,
        /// 301, 302 (the default), 303, 307 or 308.
        status_code: Option<i64>,
    }

    /// What is forwarded instead.
    Rewrite {
        /// Host name.
        hostname: Option<String>,
        /// Path.
        path: Option<PathModifier>,
    }

    /// How a path is replaced.
    PathModifier {
        /// `ReplaceFullPath` or `ReplacePrefixMatch`.
        r#type: String,
        /// For its type.
        replace_full_path: Option<String>,
        /// For its type.
        replace_prefix_match: Option<String>,
    }

    /// Which pages of other origins may call.
    Cors {
        /// Origins.
        allow_origins: Vec<String>,
        /// Whether requests may carry cookies.
        allow_credentials: Option<bool>,
        /// Methods.
        allow_methods: Vec<String>,
        /// Request headers.
        allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        expose_headers: Vec<String>,
        /// Seconds for which a preflight answer may be kept.
        max_age: Option<i64>,
    }

    /// An object that traffic goes to.
    ObjectRef {
        /// Its group; absent means core.
        group: Option<String>,
        /// Its kind; absent means Service.
        kind: Option<String>,
        /// Its name.
        name: String,
        /// Its namespace; absent means the route's.
        namespace: Option<String>,
        /// Its port; a Service needs one.
        port: Option<i64>,
    }

    /// An object that a share of the traffic goes to.
    BackendRef {
        /// Its group; absent means core.
        group: Option<String>,
        /// Its kind; absent means Service.
        kind: Option<String>,
        /// Its name.
        name: String,
        /// Its namespace; absent means the route's.
        namespace: Option<String>,
        /// Its port; a Service needs one.
        port: Option<i64>,
        /// Its share; absent means 1.
        weight: Option<i64>,
        /// Applied to what goes there.
        filters: Vec<Filter>,
    }

    /// How long things may take.
    Timeouts {
        /// The whole request.
        request: Option<String>,
        /// One attempt.
        backend_request: Option<String>,
    }

    /// When to try again (GEP-1731).
    Retry {
        /// Status codes.
        codes: Vec<i64>,
        /// Attempts after the first.
        attempts: Option<i64>,
        /// Shortest wait between attempts.
        backoff: Option<String>,
    }

    /// How a client stays with an endpoint (GEP-1619).
    SessionPersistence {
        /// Name of the cookie or header.
        session_name: Option<String>,
        /// Longest life of a session.
        absolute_timeout: Option<String>,
        /// Longest pause of a session.
        idle_timeout: Option<String>,
        /// `Cookie` (the default) or `Header`.
        r#type: Option<String>,
        /// About the cookie.
        cookie_config: Option<CookieConfig>,
        /// About the cookie, as newer versions spell it.
        cookie: Option<CookieConfig>,
        /// About the header.
        header: Option<HeaderConfig>,
    }

    /// A cookie that carries a session.
    CookieConfig {
        /// Its name.
        name: Option<String>,
        /// Its path; absent means `/`.
        path: Option<String>,
        /// `Session` (the default) or `Permanent`.
        lifetime_type: Option<String>,
    }

    /// A header that carries a session.
    HeaderConfig {
        /// Its name.
        name: String,
    }
}

impl BackendRef {
    /// The object alone, without share and filters.
    pub fn object(&self) -> ObjectRef {
        let Self { group, kind, name, namespace, port, weight: _, filters: _ } = self.clone();
        ObjectRef { group, kind, name, namespace, port }
    }
}
