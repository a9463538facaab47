//! Filters of a rule or a backend: each checked, at most once where that is the rule, put in order.

use super::checks;
use super::error::{Findings, RuleFault};
use super::rule::{Matched, check_fraction, note_mirror};
use crate::filter::{CorsPolicy, End, Filters, NewPath, Of, RedirectTo, RewriteTo, Step, check_change};
use crate::model::limits::{FILTERS_MAX, RESPOND_BYTES_MAX};
use crate::model::{Filter, HeaderChange, PathChange, Redirect, Respond, Rewrite};

/// Where filters stand.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The prefix that the rule's one match matches.
    pub(super) prefix: Option<Matched<&'a str>>,
    /// On a rule, rather than on one of its backends.
    pub(super) is_rule: bool,
}

/// Compiles a list of filters; `field` is the list inside the rule.
pub(super) fn compile(
    list: &[Filter],
    field: &str,
    scope: Scope<'_>,
    findings: &mut Findings<'_>,
) -> Filters {
    findings.length(field, list.len(), FILTERS_MAX);
    check_once(list, field, findings);
    let mut filters = Filters::default();
    let mut steps = Vec::new();
    for (at, filter) in list.iter().enumerate() {
        let field = format!("{field}[{at}]");
        match filter {
            Filter::RequestHeaders(change) => {
                steps.extend(headers(change, Of::Request, &field, findings).map(Step::Headers));
            }
            Filter::ResponseHeaders(change) => {
                filters.response_headers = headers(change, Of::Response, &field, findings).map(Box::new);
            }
            Filter::Redirect(to) => {
                filters.end = Some(Box::new(End::Redirect(redirect(to, &field, scope, findings))));
            }
            Filter::Rewrite(to) => steps.push(Step::Rewrite(rewrite(to, &field, scope, findings))),
            Filter::Mirror(mirror) => {
                check_fraction(mirror.fraction, &field, findings);
                note_mirror(&mirror.target, &format!("{field}.backendRef"), findings);
                steps.push(Step::Mirror(mirror.clone()));
            }
            Filter::Cors(_) if !scope.is_rule => {
                findings.report(&field, RuleFault::NotOnBackend { filter: "CORS" });
            }
            Filter::Cors(cors) => {
                let compiled = CorsPolicy::compile(cors);
                filters.cors = compiled.map(Box::new).map_err(|error| findings.report(&field, error)).ok();
            }
            Filter::Respond(respond) => {
                filters.end = Some(Box::new(End::Respond(answer(respond, &field, findings))));
            }
            Filter::Unsupported { what } => {
                findings.report(&field, RuleFault::Unsupported { what: what.to_string() });
            }
        }
    }
    filters.steps = steps.into();
    filters
}

/// A rule that answers by itself sends nothing anywhere.
pub(super) fn check_end(filters: &Filters, has_backends: bool, findings: &mut Findings<'_>) {
    let filter = match filters.end.as_deref() {
        None => return,
        Some(End::Redirect(_)) => "RequestRedirect",
        Some(End::Respond(_)) => "DirectResponse",
    };
    if has_backends {
        findings.report("backendRefs", RuleFault::WithBackends { filter });
    }
}

/// Filters that may stand only once, or not together.
fn check_once(list: &[Filter], field: &str, findings: &mut Findings<'_>) {
    let count = |name: &str| list.iter().filter_map(once).filter(|found| *found == name).count();
    let mut names: Vec<&'static str> = list.iter().filter_map(once).collect();
    names.sort_unstable();
    names.dedup();
    for filter in names.iter().filter(|name| count(name) > 1) {
        findings.report(field, RuleFault::Repeated { filter });
    }
    for (first, second) in [
        ("RequestRedirect", "URLRewrite"),
        ("DirectResponse", "URLRewrite"),
        ("DirectResponse", "RequestRedirect"),
    ] {
        if names.contains(&first) && names.contains(&second) {
            findings.report(field, RuleFault::Conflict { first, second });
        }
    }
}

/// The name of a filter that may stand only once.
fn once(filter: &Filter) -> Option<&'static str> {
    match filter {
        Filter::RequestHeaders(_) => Some("RequestHeaderModifier"),
        Filter::ResponseHeaders(_) => Some("ResponseHeaderModifier"),
        Filter::Redirect(_) => Some("RequestRedirect"),
        Filter::Rewrite(_) => Some("URLRewrite"),
        Filter::Cors(_) => Some("CORS"),
        Filter::Respond(_) => Some("DirectResponse"),
        Filter::Mirror(_) | Filter::Unsupported { .. } => None,
    }
}

fn headers(change: &HeaderChange, of: Of, field: &str, findings: &mut Findings<'_>) -> Option<HeaderChange> {
    check_change(change, of).map_err(|error| findings.report(field, error)).ok()
}

fn redirect(to: &Redirect, field: &str, scope: Scope<'_>, findings: &mut Findings<'_>) -> RedirectTo {
    let status = to.status.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        findings.report(&format!("{field}.statusCode"), RuleFault::RedirectStatus { status });
    }
    if let Some(port) = to.port {
        findings.range(&format!("{field}.port"), u64::from(port), (1, 65_535));
    }
    check_host(to.hostname.as_deref(), field, findings);
    let path = to.path.as_ref().and_then(|path| new_path(path, field, scope, findings));
    RedirectTo { status, scheme: to.scheme, hostname: to.hostname.clone(), port: to.port, path }
}

fn rewrite(to: &Rewrite, field: &str, scope: Scope<'_>, findings: &mut Findings<'_>) -> RewriteTo {
    check_host(to.hostname.as_deref(), field, findings);
    let path = to.path.as_ref().and_then(|path| new_path(path, field, scope, findings));
    RewriteTo { hostname: to.hostname.clone(), path }
}

fn check_host(hostname: Option<&str>, field: &str, findings: &mut Findings<'_>) {
    if let Some(text) = hostname.filter(|name| !checks::is_hostname(name)) {
        let fault = RuleFault::Name { text: text.to_owned(), what: "host name" };
        findings.report(&format!("{field}.hostname"), fault);
    }
}

fn new_path(
    change: &PathChange,
    field: &str,
    scope: Scope<'_>,
    findings: &mut Findings<'_>,
) -> Option<NewPath> {
    let field = format!("{field}.path");
    let (text, is_prefix) = match change {
        PathChange::Full(text) => (text, false),
        PathChange::Prefix(text) => (text, true),
    };
    if is_prefix && scope.prefix.is_none() {
        findings.report(&field, RuleFault::PrefixUnclear);
    }
    let is_nothing = is_prefix && text.is_empty();
    let checked = if is_nothing { Ok(String::new()) } else { checks::path(text) };
    match checked {
        Ok(path) if is_prefix => {
            let trim = |text: &str| text.strip_suffix('/').unwrap_or(text).into();
            scope.prefix.map(|matched| match matched {
                Matched::Segments(matched) => {
                    NewPath::Prefix { matched: trim(matched), replacement: trim(&path) }
                }
                Matched::Letters(matched) => {
                    NewPath::Start { matched: matched.into(), replacement: path.into() }
                }
            })
        }
        Ok(path) => Some(NewPath::Full(path.into())),
        Err(why) => {
            findings.report(&field, RuleFault::Path { path: text.to_string(), why });
            None
        }
    }
}

fn answer(respond: &Respond, field: &str, findings: &mut Findings<'_>) -> Respond {
    findings.range(&format!("{field}.statusCode"), u64::from(respond.status), (200, 599));
    if respond.body.len() > RESPOND_BYTES_MAX {
        findings.report(&format!("{field}.body"), RuleFault::BodyTooLong { bytes: respond.body.len() });
    }
    respond.clone()
}
