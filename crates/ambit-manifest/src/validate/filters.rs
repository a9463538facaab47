//! Filters of rules and backends.

use ambit_types::written::{Filter, HeaderModifier, Mirror, PathModifier, Redirect};

use super::routes::object_ref;
use super::{Checks, text};

const FILTERS_MAX: usize = 16;
const HEADERS_MAX: usize = 16;
const STATUS_CODES: &[i64] = &[301, 302, 303, 307, 308];

/// Every type of filter; the first four are for calls too.
const ALL: &[&str] = &[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "ExtensionRef",
    "RequestRedirect",
    "URLRewrite",
    "CORS",
];

/// What kind of route a filter stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Grpc,
}

impl Kind {
    fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Http => ALL,
            Self::Grpc => &ALL[..4],
        }
    }
}

pub(super) fn check(c: &mut Checks<'_>, at: &str, filters: &[Filter], kind: Kind) {
    c.at_most(at, filters, FILTERS_MAX);
    for (i, one) in filters.iter().enumerate() {
        filter(c, &format!("{at}[{i}]"), one, kind);
    }
}

fn filter(c: &mut Checks<'_>, at: &str, filter: &Filter, kind: Kind) {
    let fields = [
        ("RequestHeaderModifier", "requestHeaderModifier", filter.request_header_modifier.is_some()),
        ("ResponseHeaderModifier", "responseHeaderModifier", filter.response_header_modifier.is_some()),
        ("RequestMirror", "requestMirror", filter.request_mirror.is_some()),
        ("RequestRedirect", "requestRedirect", filter.request_redirect.is_some()),
        ("URLRewrite", "urlRewrite", filter.url_rewrite.is_some()),
        ("CORS", "cors", filter.cors.is_some()),
        ("ExtensionRef", "extensionRef", filter.extension_ref.is_some()),
    ];
    if filter.r#type.is_empty() {
        return c.missing(format!("{at}.type"));
    }
    if ALL.contains(&filter.r#type.as_str()) {
        c.one_of(format!("{at}.type"), &filter.r#type, kind.filters());
    } else {
        c.known_or_newer(format!("{at}.type"), &filter.r#type, kind.filters());
    }
    for (name, field, is_given) in fields {
        match (name == filter.r#type, is_given) {
            (true, false) => {
                c.bad(format!("{at}.{field}"), format!("the field is missing, type {name} needs it"))
            }
            (false, true) => {
                c.bad(format!("{at}.{field}"), format!("does not belong to the type {}", filter.r#type));
            }
            (true, true) | (false, false) => {}
        }
    }
    contents(c, at, filter);
}

fn contents(c: &mut Checks<'_>, at: &str, filter: &Filter) {
    for (field, headers) in [
        ("requestHeaderModifier", &filter.request_header_modifier),
        ("responseHeaderModifier", &filter.response_header_modifier),
    ] {
        if let Some(headers) = headers {
            modifier(c, &format!("{at}.{field}"), headers);
        }
    }
    if let Some(mirror) = &filter.request_mirror {
        mirrored(c, &format!("{at}.requestMirror"), mirror);
    }
    if let Some(redirect) = &filter.request_redirect {
        redirected(c, &format!("{at}.requestRedirect"), redirect);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let at = format!("{at}.urlRewrite");
        if let Some(hostname) = &rewrite.hostname {
            c.text(format!("{at}.hostname"), hostname, text::host_name);
        }
        if let Some(path) = &rewrite.path {
            path_modifier(c, &format!("{at}.path"), path);
        }
    }
    if let Some(cors) = &filter.cors
        && let Some(age) = cors.max_age
    {
        c.range(format!("{at}.cors.maxAge"), age, 1, i64::from(i32::MAX));
    }
    if let Some(extension) = &filter.extension_ref {
        for (field, value) in [("kind", &extension.kind), ("name", &extension.name)] {
            if value.is_empty() {
                c.missing(format!("{at}.extensionRef.{field}"));
            }
        }
    }
}

fn modifier(c: &mut Checks<'_>, at: &str, headers: &HeaderModifier) {
    for (list, headers) in [("set", &headers.set), ("add", &headers.add)] {
        c.at_most(format!("{at}.{list}"), headers, HEADERS_MAX);
        for (i, _) in headers.iter().enumerate().filter(|(_, header)| header.name.is_empty()) {
            c.missing(format!("{at}.{list}[{i}].name"));
        }
    }
    c.at_most(format!("{at}.remove"), &headers.remove, HEADERS_MAX);
}

fn mirrored(c: &mut Checks<'_>, at: &str, mirror: &Mirror) {
    object_ref(c, &format!("{at}.backendRef"), &mirror.backend_ref);
    if let Some(percent) = mirror.percent {
        c.range(format!("{at}.percent"), percent, 0, 100);
    }
    let Some(fraction) = &mirror.fraction else { return };
    let at = format!("{at}.fraction");
    if mirror.percent.is_some() {
        c.bad(&at, "not together with percent");
    }
    let denominator = fraction.denominator.unwrap_or(100);
    c.range(format!("{at}.denominator"), denominator, 1, i64::from(i32::MAX));
    c.range(format!("{at}.numerator"), fraction.numerator, 0, denominator.max(0));
}

fn redirected(c: &mut Checks<'_>, at: &str, redirect: &Redirect) {
    c.optional_one_of(format!("{at}.scheme"), redirect.scheme.as_ref(), &["http", "https"]);
    if let Some(hostname) = &redirect.hostname {
        c.text(format!("{at}.hostname"), hostname, text::host_name);
    }
    if let Some(path) = &redirect.path {
        path_modifier(c, &format!("{at}.path"), path);
    }
    if let Some(port) = redirect.port {
        c.port(format!("{at}.port"), port);
    }
    if let Some(status) = redirect.status_code.filter(|status| !STATUS_CODES.contains(status)) {
        let words = format!("{status} is not a valid value, valid are 301, 302, 303, 307, 308");
        c.bad(format!("{at}.statusCode"), words);
    }
}

fn path_modifier(c: &mut Checks<'_>, at: &str, path: &PathModifier) {
    let fields = [
        ("ReplaceFullPath", "replaceFullPath", path.replace_full_path.is_some()),
        ("ReplacePrefixMatch", "replacePrefixMatch", path.replace_prefix_match.is_some()),
    ];
    if path.r#type.is_empty() {
        return c.missing(format!("{at}.type"));
    }
    c.one_of(format!("{at}.type"), &path.r#type, &["ReplaceFullPath", "ReplacePrefixMatch"]);
    for (name, field, is_given) in fields {
        match (name == path.r#type, is_given) {
            (true, false) => {
                c.bad(format!("{at}.{field}"), format!("the field is missing, type {name} needs it"))
            }
            (false, true) => {
                c.bad(format!("{at}.{field}"), format!("does not belong to the type {}", path.r#type));
            }
            (true, true) | (false, false) => {}
        }
    }
}
