//! A rule: what it changes, and where requests go.

use ambit_types::Str;
use ambit_types::written::{
    BackendRef, Cors, Filter, Fraction, Header, HeaderModifier, HttpMatch, HttpRule, Mirror, ObjectRef,
    PathMatch, PathModifier, Percentage, Redirect, Rewrite, Timeouts, VirtualCors, VirtualDestination,
    VirtualHeaderChange, VirtualHeaders, VirtualRedirect, VirtualRoute, VirtualRule,
};

use super::attempts::{millis, written};
use super::matches::Comparison;
use super::{Host, Import, START};
use crate::input;

/// Ten-thousandths in one percent.
const PERCENT: u32 = 10_000;
/// Longest name of a rule in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Matches of one rule, as of an HTTPRoute.
const MATCHES_MAX: usize = 64;
/// Destinations of one rule, as of an HTTPRoute.
const DESTINATIONS_MAX: usize = 16;

impl Import<'_> {
    /// A rule; where the path is rewritten, one for each of its matches, because what is replaced depends on it.
    pub(super) fn rule(&mut self, at: usize, of: &VirtualRule) -> Vec<input::VirtualRule> {
        let path = format!("spec.http[{at}]");
        self.unread(
            &path,
            &[
                ("mirrors", of.mirrors),
                ("mirrorPercent", of.mirror_percent),
                ("directResponse", of.direct_response),
                ("delegate", of.delegate),
            ],
        );
        // Each match of a rewrite becomes a rule with every destination: what is too many is not even begun.
        let counts = [("match", of.r#match.len(), MATCHES_MAX), ("route", of.route.len(), DESTINATIONS_MAX)];
        for (field, count, most) in counts {
            if count > most {
                self.at_most(&format!("{path}.{field}"), count, most);
                return Vec::new();
            }
        }
        if of.route.is_empty() == of.redirect.is_none() {
            self.bad(&path, "exactly one of route and redirect is needed");
        }
        let matches = of.r#match.iter().enumerate();
        let matches = matches.map(|(i, one)| self.one_match(&format!("{path}.match[{i}]"), one)).collect();
        let rule = HttpRule {
            name: Some(name(at, of)),
            matches,
            filters: self.filters(&path, of),
            backend_refs: self.backends(&path, &of.route),
            timeouts: self.timeouts(&path, of),
            ..HttpRule::default()
        };
        let retry = of.retries.as_ref().map(|retries| self.retries(&format!("{path}.retries"), retries));
        let fault = of.fault.as_ref().and_then(|fault| self.fault(&format!("{path}.fault"), fault));
        let rules = self.rewritten(&path, of, rule);
        let made = |rule| input::VirtualRule { at, rule, retry: retry.clone(), fault: fault.clone() };
        rules.into_iter().map(made).collect()
    }

    fn filters(&mut self, path: &str, of: &VirtualRule) -> Vec<Filter> {
        let mut filters = self.header_filters(&format!("{path}.headers"), of.headers.as_ref());
        if let Some(to) = &of.redirect {
            let redirect = self.redirect(&format!("{path}.redirect"), to);
            filters.push(Filter {
                r#type: "RequestRedirect".to_owned(),
                request_redirect: Some(redirect),
                ..Filter::default()
            });
        }
        if let Some(to) = &of.mirror {
            filters.extend(self.mirror(path, to, of.mirror_percentage.as_ref()));
        } else if of.mirror_percentage.is_some() {
            self.bad(format!("{path}.mirrorPercentage"), "counts only with mirror");
        }
        if let Some(cors) = &of.cors_policy {
            let cors = self.cors(&format!("{path}.corsPolicy"), cors);
            filters.push(Filter { r#type: "CORS".to_owned(), cors: Some(cors), ..Filter::default() });
        }
        filters
    }

    fn header_filters(&mut self, path: &str, of: Option<&VirtualHeaders>) -> Vec<Filter> {
        let mut filters = Vec::new();
        if let Some(change) = of.and_then(|of| of.request.as_ref()) {
            filters.push(Filter {
                r#type: "RequestHeaderModifier".to_owned(),
                request_header_modifier: Some(self.header_change(&format!("{path}.request"), change)),
                ..Filter::default()
            });
        }
        if let Some(change) = of.and_then(|of| of.response.as_ref()) {
            filters.push(Filter {
                r#type: "ResponseHeaderModifier".to_owned(),
                response_header_modifier: Some(self.header_change(&format!("{path}.response"), change)),
                ..Filter::default()
            });
        }
        filters
    }

    fn header_change(&mut self, path: &str, of: &VirtualHeaderChange) -> HeaderModifier {
        for (list, headers) in [("set", &of.set), ("add", &of.add)] {
            for (name, _) in headers.iter().filter(|(_, value)| value.contains('%')) {
                self.not_imported(
                    format!("{path}.{list}[{name}]"),
                    "a value with %, which Envoy would replace",
                );
            }
        }
        let header = |(name, value): (&String, &String)| Header { name: name.clone(), value: value.clone() };
        HeaderModifier {
            set: of.set.iter().map(header).collect(),
            add: of.add.iter().map(header).collect(),
            remove: of.remove.clone(),
        }
    }

    fn redirect(&mut self, path: &str, of: &VirtualRedirect) -> Redirect {
        self.unread(path, &[("derivePort", of.derive_port)]);
        if of.authority.as_ref().is_some_and(|authority| authority.contains(':')) {
            self.not_imported(format!("{path}.authority"), "a port in authority; give it as port");
        }
        if of.uri.as_ref().is_some_and(|uri| uri.contains(['%', '?'])) {
            self.not_imported(format!("{path}.uri"), "a path with % or ?");
        }
        if of.scheme.as_ref().is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
            self.not_imported(format!("{path}.scheme"), "another scheme than http and https");
        }
        Redirect {
            scheme: of.scheme.clone(),
            hostname: of.authority.clone(),
            path: of.uri.as_deref().map(full_path),
            port: of.port,
            status_code: Some(of.redirect_code.unwrap_or(301)),
        }
    }

    fn mirror(&mut self, path: &str, to: &VirtualDestination, share: Option<&Percentage>) -> Option<Filter> {
        let backend_ref = self.destination(&format!("{path}.mirror"), to);
        let share = match share {
            None => 100 * PERCENT,
            Some(share) => self.percentage(&format!("{path}.mirrorPercentage"), share),
        };
        let fraction = Fraction { numerator: i64::from(share), denominator: Some(i64::from(100 * PERCENT)) };
        (share > 0).then(|| Filter {
            r#type: "RequestMirror".to_owned(),
            request_mirror: Some(Mirror { backend_ref, percent: None, fraction: Some(fraction) }),
            ..Filter::default()
        })
    }

    /// A share in ten-thousandths of a percent.
    pub(super) fn percentage(&mut self, path: &str, of: &Percentage) -> u32 {
        let share = of.value.ten_thousandths().filter(|share| *share <= 100 * PERCENT);
        share.unwrap_or_else(|| {
            self.bad(format!("{path}.value"), "not between 0 and 100, with at most four decimals");
            0
        })
    }

    fn cors(&mut self, path: &str, of: &VirtualCors) -> Cors {
        self.unread(
            path,
            &[("allowOrigin", of.allow_origin), ("unmatchedPreflights", of.unmatched_preflights)],
        );
        let mut allow_origins = Vec::new();
        for (i, origin) in of.allow_origins.iter().enumerate() {
            let at = format!("{path}.allowOrigins[{i}]");
            match self.comparison(&at, origin) {
                Comparison::Exact(origin) => allow_origins.push(origin.to_owned()),
                Comparison::Prefix(_) | Comparison::Regex(_) | Comparison::Nothing => {
                    self.not_imported(at, "an origin other than by exact");
                }
                Comparison::Several => {}
            }
        }
        let max_age = of.max_age.as_deref().and_then(|age| {
            let whole =
                millis(age).filter(|age| age % 1000 == 0).and_then(|age| i64::try_from(age / 1000).ok());
            if whole.is_none() {
                self.bad(format!("{path}.maxAge"), format!("{age:?} is no number of seconds, such as 60s"));
            }
            whole
        });
        Cors {
            allow_origins,
            allow_credentials: of.allow_credentials,
            allow_methods: of.allow_methods.clone(),
            allow_headers: of.allow_headers.clone(),
            expose_headers: of.expose_headers.clone(),
            max_age,
        }
    }

    fn backends(&mut self, path: &str, of: &[VirtualRoute]) -> Vec<BackendRef> {
        let is_only = of.len() == 1;
        let mut made = Vec::new();
        for (i, one) in of.iter().enumerate() {
            let at = format!("{path}.route[{i}]");
            if one.weight.is_some_and(|weight| weight < 0) {
                self.bad(format!("{at}.weight"), "a weight is not negative");
            }
            let ObjectRef { group, kind, name, namespace, port } =
                self.destination(&format!("{at}.destination"), &one.destination);
            // Istio sends everything to the only one, whatever its weight, and nothing to one of several without any.
            let weight = if is_only { 1 } else { one.weight.unwrap_or(0) };
            let filters = self.header_filters(&format!("{at}.headers"), one.headers.as_ref());
            made.push(BackendRef { group, kind, name, namespace, port, weight: Some(weight), filters });
        }
        if !is_only && !of.is_empty() && made.iter().all(|one| one.weight == Some(0)) {
            self.bad(format!("{path}.route"), "no destination has a weight");
        }
        made
    }

    /// A service; what is none stays a reference that leads nowhere, so that its requests are refused.
    fn destination(&mut self, path: &str, of: &VirtualDestination) -> ObjectRef {
        if of.subset.0 {
            self.bad(format!("{path}.subset"), "subsets are not imported; use one Service per version");
        }
        let port = of.port.as_ref().map(|port| port.number);
        match Host::read(&of.host, self.namespace) {
            Some(host) => {
                self.domains.extend(host.domain.map(Str::from));
                let namespace = (host.namespace != self.namespace).then(|| host.namespace.to_owned());
                ObjectRef { name: host.name.to_owned(), namespace, port, ..ObjectRef::default() }
            }
            None => {
                self.not_imported(format!("{path}.host"), "a host that is no Service of Kubernetes");
                ObjectRef { name: of.host.clone(), port, ..ObjectRef::default() }
            }
        }
    }

    fn timeouts(&mut self, path: &str, of: &VirtualRule) -> Option<Timeouts> {
        let request = of.timeout.as_deref().and_then(|text| self.duration(&format!("{path}.timeout"), text));
        let one = of.retries.as_ref().and_then(|retries| retries.per_try_timeout.as_deref());
        let one = one.and_then(|text| self.duration(&format!("{path}.retries.perTryTimeout"), text));
        // An attempt that may take longer than the whole has no limit of its own.
        let one = one.filter(|one| request.is_none_or(|request| request == 0 || *one <= request));
        (request.is_some() || one.is_some())
            .then(|| Timeouts { request: request.map(written), backend_request: one.map(written) })
    }

    /// The rule with its rewrite.
    fn rewritten(&mut self, path: &str, of: &VirtualRule, rule: HttpRule) -> Vec<HttpRule> {
        let Some(rewrite) = &of.rewrite else { return vec![rule] };
        let at = format!("{path}.rewrite");
        self.unread(&at, &[("uriRegexRewrite", rewrite.uri_regex_rewrite)]);
        if of.redirect.is_some() {
            self.bad(&at, "not together with redirect");
        }
        let with = |mut rule: HttpRule, path: Option<PathModifier>| {
            let hostname = rewrite.authority.clone();
            rule.filters.push(Filter {
                r#type: "URLRewrite".to_owned(),
                url_rewrite: Some(Rewrite { hostname, path }),
                ..Filter::default()
            });
            rule
        };
        let Some(uri) = rewrite.uri.as_deref() else { return vec![with(rule, None)] };
        let mut rule = rule;
        let matches = std::mem::take(&mut rule.matches);
        let matches = if matches.is_empty() { vec![HttpMatch::default()] } else { matches };
        let mut made = Vec::new();
        for mut one in matches {
            let matched = one.path.get_or_insert_with(everything);
            let modifier = self.new_path(&format!("{at}.uri"), matched, uri);
            made.push(with(HttpRule { matches: vec![one], ..rule.clone() }, Some(modifier)));
        }
        made
    }

    fn new_path(&mut self, path: &str, matched: &PathMatch, uri: &str) -> PathModifier {
        let prefix = matched.value.as_deref().unwrap_or_default();
        match matched.r#type.as_deref() {
            Some(START) => {
                if uri.ends_with('/') && !prefix.ends_with('/') {
                    let words = format!(
                        "not imported: {uri:?} in place of {prefix:?} makes two slashes; let both end with one, or neither"
                    );
                    self.bad(path, words);
                }
                PathModifier {
                    r#type: "ReplacePrefixMatch".to_owned(),
                    replace_prefix_match: Some(uri.to_owned()),
                    ..PathModifier::default()
                }
            }
            Some("Exact") => full_path(uri),
            _ => {
                self.not_imported(path, "a rewrite of what a regex matches");
                full_path(uri)
            }
        }
    }
}

fn full_path(uri: &str) -> PathModifier {
    PathModifier {
        r#type: "ReplaceFullPath".to_owned(),
        replace_full_path: Some(uri.to_owned()),
        ..PathModifier::default()
    }
}

fn everything() -> PathMatch {
    PathMatch { r#type: Some(START.to_owned()), value: Some("/".to_owned()) }
}

/// What records call a rule: its own name if it has a plain one.
fn name(at: usize, of: &VirtualRule) -> String {
    let is_plain = |name: &&String| {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_word)
    };
    of.name.as_ref().filter(is_plain).cloned().unwrap_or_else(|| format!("http[{at}]"))
}
