//! Filters in the words of the model.

use ambit_route::model::{
    Cors, Filter, Fraction, HeaderChange, Mirror, PathChange, Redirect, Rewrite, Scheme,
};
use ambit_types::{Str, written};

use super::super::resolve;
use super::{Scope, number, strs};

/// Filters of a rule or backend.
pub(super) fn all(scope: &Scope<'_>, filters: &[written::Filter]) -> Vec<Filter> {
    filters.iter().map(|one| filter(scope, one)).collect()
}

fn filter(scope: &Scope<'_>, one: &written::Filter) -> Filter {
    let made = match one.r#type.as_str() {
        "RequestHeaderModifier" => {
            one.request_header_modifier.as_ref().map(|h| Filter::RequestHeaders(headers(h)))
        }
        "ResponseHeaderModifier" => {
            one.response_header_modifier.as_ref().map(|h| Filter::ResponseHeaders(headers(h)))
        }
        "RequestRedirect" => one.request_redirect.as_ref().map(|to| Filter::Redirect(redirect(to))),
        "URLRewrite" => one.url_rewrite.as_ref().map(|to| {
            let hostname = to.hostname.as_deref().map(Str::from);
            Filter::Rewrite(Rewrite { hostname, path: to.path.as_ref().map(path) })
        }),
        "RequestMirror" => one.request_mirror.as_ref().map(|to| Filter::Mirror(mirror(scope, to))),
        "CORS" => one.cors.as_ref().map(|of| Filter::Cors(cors(of))),
        "ExtensionRef" => one.extension_ref.as_ref().map(|to| {
            let written::LocalRef { group, kind, name } = to;
            let what =
                format!("ExtensionRef {{\"group\":\"{group}\",\"kind\":\"{kind}\",\"name\":\"{name}\"}}");
            Filter::Unsupported { what: what.into() }
        }),
        _ => None,
    };
    made.unwrap_or_else(|| Filter::Unsupported { what: one.r#type.as_str().into() })
}

fn headers(of: &written::HeaderModifier) -> HeaderChange {
    let pairs = |list: &[written::Header]| {
        list.iter().map(|h| (Str::from(h.name.as_str()), Str::from(h.value.as_str()))).collect()
    };
    HeaderChange { set: pairs(&of.set), add: pairs(&of.add), remove: strs(&of.remove) }
}

fn redirect(to: &written::Redirect) -> Redirect {
    let scheme = to.scheme.as_deref().map(|scheme| match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    });
    Redirect {
        scheme,
        hostname: to.hostname.as_deref().map(Str::from),
        path: to.path.as_ref().map(path),
        port: to.port.map(number),
        status: to.status_code.map(number),
    }
}

fn path(of: &written::PathModifier) -> PathChange {
    let text = |text: &Option<String>| Str::from(text.as_deref().unwrap_or_default());
    match of.r#type.as_str() {
        "ReplaceFullPath" => PathChange::Full(text(&of.replace_full_path)),
        _ => PathChange::Prefix(text(&of.replace_prefix_match)),
    }
}

fn mirror(scope: &Scope<'_>, to: &written::Mirror) -> Mirror {
    let share = to.fraction.as_ref().map(|fraction| Fraction {
        numerator: number(fraction.numerator),
        denominator: number(fraction.denominator.unwrap_or(100)),
    });
    let percent = || to.percent.map(|percent| Fraction::percent(number(percent)));
    let fraction = share.or_else(percent).unwrap_or(Fraction::ALL);
    Mirror { target: resolve::target(scope, &to.backend_ref), fraction }
}

fn cors(of: &written::Cors) -> Cors {
    Cors {
        allow_origins: strs(&of.allow_origins),
        allow_methods: strs(&of.allow_methods),
        allow_headers: strs(&of.allow_headers),
        expose_headers: strs(&of.expose_headers),
        allow_credentials: of.allow_credentials.unwrap_or(false),
        max_age_seconds: of.max_age.map(number),
    }
}
