//! `ambit explain … --as-of T`: what was recorded of the pair around a time, beside what would happen now.
//!
//! Nobody keeps past states of the mesh, so nothing is decided anew for that time: the nearest records before and after
//! it tell what was decided then, and the control plane which objects have changed since.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use ambit_explain::{Destination, Explanation, Flow, FlowEnd, Source, Verdict};
use ambit_runtime::clock;
use serde_json::{Value, json};

use super::Args;
use crate::cmd::nodes::{block_on, json as ask, text};
use crate::cmd::policy::seen;

#[cfg(test)]
mod tests;

/// How far back anything is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Changes that are named.
const NAMED: usize = 5;

/// The time that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(SystemTime),
    Ago(Duration),
}

/// Reads `2026-01-02T03:04:05Z`, `10m` or `10m ago`.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(at) = humantime::parse_rfc3339_weak(text) {
        return Ok(Moment::At(at));
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    humantime::parse_duration(ago)
        .map(Moment::Ago)
        .map_err(|_| "a time such as 2026-01-02T03:04:05Z, or how long ago, such as 10m".to_owned())
}

/// What is known of that time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Then {
    at: SystemTime,
    before: Option<Flow>,
    after: Option<Flow>,
    /// Changes of configuration since, newest first; none if nobody tells.
    changes: Option<Vec<String>>,
}

/// Looks for records of the pair, and for changes since.
///
/// # Errors
/// When no proxy answers.
pub(super) fn then(args: &Args, moment: Moment, now: &Explanation) -> anyhow::Result<Then> {
    let at = match moment {
        Moment::At(at) => at,
        Moment::Ago(ago) => clock::wall().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
    };
    let seen = seen::ask(&args.at, REMEMBERED)?;
    let flows: Vec<&Flow> = seen.flows.iter().filter(|flow| is_meant(args, now, flow)).collect();
    let (before, after) = nearest(&flows, &rfc3339(at));
    let istiod = args.at.istiod();
    // That it does not answer is told by now.
    let changes = block_on(async { ask(&istiod, "/api/v1/incidents").await }).ok();
    seen.tell();
    Ok(Then { at, before, after, changes: changes.map(|answer| since(&answer, at)) })
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The last record until then and the first one after it, as whoever decided wrote them. A pair that was only counted
/// tells of its last connection alone.
///
/// They come oldest first.
fn nearest(flows: &[&Flow], at: &str) -> (Option<Flow>, Option<Flow>) {
    let is_inbound = |flow: &Flow| flow.direction.as_deref() == Some("inbound");
    let inbound = flows.iter().copied().filter(|flow| is_inbound(flow));
    let decided: BTreeSet<&str> = inbound.map(|flow| flow.conn_id.as_str()).collect();
    let is_counted = |flow: &Flow| flow.conn_id.is_empty();
    let is_last_word =
        |flow: &Flow| is_inbound(flow) || is_counted(flow) || !decided.contains(flow.conn_id.as_str());
    let told: Vec<&Flow> = flows.iter().copied().filter(|flow| is_last_word(flow)).collect();
    // Times of one form compare as texts.
    let before = told.iter().copied().rfind(|flow| flow.time.as_str() <= at);
    let after = told.iter().copied().find(|flow| flow.time.as_str() > at && !is_counted(flow));
    (before.cloned(), after.cloned())
}

/// Whether a record is of the pair, and of the request if one is asked about. Behind a service stand the ports of its
/// pods, so that any port of it is meant.
fn is_meant(args: &Args, now: &Explanation, flow: &Flow) -> bool {
    let is_named = |end: &FlowEnd, name: &Option<String>| name.is_some() && name_of(end) == *name;
    let from = match &args.source {
        Source::Named { namespace, name } => is_of(&flow.src, namespace, name),
        Source::Address(ip) => {
            let addr: Option<std::net::SocketAddr> =
                flow.src.addr.as_deref().and_then(|addr| addr.parse().ok());
            addr.is_some_and(|addr| addr.ip().to_canonical() == *ip)
        }
        Source::Uid(_) => false,
    };
    let to_host = |host: &str| {
        let service = flow.service.as_deref().and_then(|service| service.strip_prefix(host));
        service.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let asked = asked(flow);
    let to = match &args.destination {
        Destination::Address(address) => asked == address.to_string() || is_named(&flow.dst, &now.endpoint),
        Destination::Host { host, .. } => to_host(host),
        Destination::Named { namespace, name, port } => {
            let is_at = asked.rsplit_once(':').is_some_and(|(_, own)| own == port.to_string());
            to_host(&format!("{name}.{namespace}.svc")) || (is_at && is_of(&flow.dst, namespace, name))
        }
    };
    let is_request = |http: &ambit_explain::FlowHttp| {
        let path = args.path.as_deref().map(|path| path.split('?').next().unwrap_or_default());
        args.method.as_ref().is_none_or(|method| http.method == *method)
            && path.is_none_or(|path| http.path == path)
    };
    (from || is_named(&flow.src, &Some(now.source.clone())))
        && to
        && flow.client.is_none()
        && flow.http.as_ref().is_none_or(is_request)
}

/// Whether an end is a pod, or one of a controller: its name, or that with something added.
fn is_of(end: &FlowEnd, namespace: &str, name: &str) -> bool {
    let is_so = |own: &Option<String>| {
        let rest = own.as_deref().and_then(|own| own.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    end.namespace.as_deref() == Some(namespace) && (is_so(&end.workload) || is_so(&end.controller))
}

fn name_of(end: &FlowEnd) -> Option<String> {
    Some(format!("{}/{}", end.namespace.as_deref()?, end.workload.as_deref()?))
}

fn asked(flow: &Flow) -> &str {
    flow.hbone_addr.as_deref().or(flow.dst.addr.as_deref()).unwrap_or("?")
}

/// Changes after a time, as the control plane lists them.
fn since(incidents: &Value, at: SystemTime) -> Vec<String> {
    let items = incidents["items"].as_array().into_iter().flatten();
    let is_later = |item: &&Value| {
        let changed = item["at"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
        item["kind"] == "config" && changed.is_some_and(|changed| changed > at)
    };
    items.filter(is_later).map(|item| format!("{} {}", text(item, "at"), text(item, "text"))).collect()
}

impl Then {
    /// Whether the record before that time, else the one after it, says something else than is decided now.
    fn differs(&self, now: &Explanation) -> Option<bool> {
        let flow = self.before.as_ref().or(self.after.as_ref())?;
        let is_allowed = now.verdict == Verdict::Allow;
        let code = now.code().map(|code| code.code());
        Some(flow.is_allowed() != is_allowed || (!is_allowed && flow.code.as_deref() != code))
    }

    /// As a member of the envelope.
    pub(super) fn value(&self, now: &Explanation) -> Value {
        json!({
            "time": rfc3339(self.at),
            "before": self.before,
            "after": self.after,
            "differs": self.differs(now),
            "changes": self.changes,
        })
    }

    /// As people read it.
    pub(super) fn lines(&self, now: &Explanation) -> String {
        let mut out = String::new();
        let mut line = |name: &str, told: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name:<12}{told}");
        };
        line("as of", &rfc3339(self.at));
        let none = || "nothing is recorded of this pair".to_owned();
        line("before", &self.before.as_ref().map_or_else(none, told));
        line("after", &self.after.as_ref().map_or_else(none, told));
        line(
            "now",
            match self.differs(now) {
                Some(true) => "it is decided otherwise than then, as told above",
                Some(false) => "it is decided as then",
                None => "as told above; what was then is not known",
            },
        );
        match self.changes.as_deref() {
            None => line("changes", "the control plane does not tell what has changed since"),
            Some([]) => line("changes", "none since that the control plane remembers"),
            Some(changes) => {
                changes.iter().take(NAMED).for_each(|change| line("changed", change));
                if changes.len() > NAMED {
                    line("", &format!("and {} earlier ones", changes.len() - NAMED));
                }
            }
        }
        out
    }
}

/// `2026-… denied AMB2104 by shop/x: shop/web-1 -> 10.0.0.1:80 GET /, hbone`.
fn told(flow: &Flow) -> String {
    let mut text = format!("{} {}", flow.time, flow.verdict);
    let mut add = |before: &str, part: Option<&str>| {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            text.push_str(before);
            text.push_str(part);
        }
    };
    add(" ", flow.code.as_deref());
    add(" by ", flow.policy.as_deref());
    let source = name_of(&flow.src).or_else(|| flow.src.addr.clone());
    add(": ", source.as_deref());
    add(" -> ", Some(asked(flow)));
    add(" ", flow.http.as_ref().map(|http| http.method.as_str()));
    add(" ", flow.http.as_ref().map(|http| http.path.as_str()));
    add(", ", Some(flow.path.as_str()));
    let id: String = flow.conn_id.chars().take(12).collect();
    add("; ambit why ", Some(id.as_str()));
    text
}
