//! Istio's VirtualService in the words of an HTTPRoute.
//!
//! Imported is what a waypoint can do exactly as Istio would; everything else is refused by name, nothing is passed
//! over. Only Services of the object's own namespace count as hosts: a tenant must not capture what others own
//! (ISTIO-SECURITY-2026-002). Two things differ from an HTTPRoute and are kept: rules are tried in order, and a prefix
//! is of letters, not of segments.

use std::collections::BTreeSet;

use ambit_types::written::{Given, ParentRef, VirtualService};
use ambit_types::{Reason, Str};

use crate::input::{Claim, Virtual};

mod attempts;
mod matches;
mod rule;
#[cfg(test)]
mod tests;

/// The gateway that stands for the mesh.
const MESH: &str = "mesh";
/// Most hosts, as many as a route may have parents.
const HOSTS_MAX: usize = 32;
/// Most rules: they are tried one after the other.
const RULES_MAX: usize = 128;
/// Most hosts that a message lists.
const LISTED_MAX: usize = 8;
/// The type of a path match by letters; no HTTPRoute can have it.
pub(crate) const START: &str = "ambit.internal/Start";

/// A field that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its path from the top of the object.
    pub path: String,
    /// Why not, and what to do.
    pub words: String,
}

/// Reads a VirtualService of a namespace.
///
/// Of one that is not in force (for other gateways, or for hosts that it does not own) the rules are not looked at. If
/// anything is wrong, what is made of it must not be used.
pub fn virtual_service(namespace: &str, spec: &VirtualService) -> (Virtual, Vec<Wrong>) {
    if !spec.gateways.is_empty() && !spec.gateways.iter().any(|gateway| gateway == MESH) {
        return (Virtual { claim: Claim::Elsewhere, ..Virtual::default() }, Vec::new());
    }
    let mut import = Import { namespace, domains: BTreeSet::new(), wrong: Vec::new() };
    let parents = match import.parents(spec) {
        Ok(parents) => parents,
        Err(words) => {
            return (Virtual { claim: Claim::Refused(words.into()), ..Virtual::default() }, Vec::new());
        }
    };
    import.unread("spec", &[("tls", spec.tls), ("tcp", spec.tcp)]);
    import.at_most("spec.hosts", spec.hosts.len(), HOSTS_MAX);
    import.at_most("spec.http", spec.http.len(), RULES_MAX);
    if let Some(other) = spec.gateways.iter().find(|gateway| *gateway != MESH) {
        import.bad(
            "spec.gateways",
            format!("not imported together with mesh: {other}; divide the object in two"),
        );
    }
    if spec.http.is_empty() {
        import.bad("spec.http", "the field is missing");
    }
    let rules = spec.http.iter().take(RULES_MAX).enumerate().flat_map(|(at, rule)| import.rule(at, rule));
    let rules = rules.collect();
    let Import { domains, wrong, .. } = import;
    (Virtual { claim: Claim::Own, domains: domains.into_iter().collect(), parents, rules }, wrong)
}

/// What is read so far.
struct Import<'a> {
    namespace: &'a str,
    /// Domains of hosts that are written whole.
    domains: BTreeSet<Str>,
    wrong: Vec<Wrong>,
}

/// A service as a host names it.
struct Host<'h> {
    name: &'h str,
    namespace: &'h str,
    domain: Option<&'h str>,
}

impl<'h> Host<'h> {
    /// `NAME`, or `NAME.NAMESPACE.svc.DOMAIN`; nothing else is a Service.
    fn read(text: &'h str, own: &'h str) -> Option<Self> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let Some((name, rest)) = text.split_once('.') else {
            return is_label(text).then_some(Self { name: text, namespace: own, domain: None });
        };
        let (namespace, rest) = rest.split_once('.')?;
        let domain = rest.strip_prefix("svc.")?;
        (is_label(name) && is_label(namespace)).then_some(Self { name, namespace, domain: Some(domain) })
    }

    /// The same, if it is of that namespace.
    fn own(text: &'h str, namespace: &'h str) -> Option<Self> {
        Self::read(text, namespace).filter(|host| host.namespace == namespace)
    }
}

impl Import<'_> {
    /// The services it is for, or why it is not in force.
    fn parents(&mut self, spec: &VirtualService) -> Result<Vec<ParentRef>, String> {
        let code = Reason::ImportOutOfNamespace.code();
        let namespace = self.namespace;
        let is_shown = |to: &String| to == "." || to == "*" || to == namespace;
        if !spec.export_to.is_empty() && !spec.export_to.iter().any(is_shown) {
            return Err(format!(
                "exportTo leaves out namespace {namespace}, the only one whose hosts it can be for ({code})"
            ));
        }
        let foreign: Vec<&str> = spec
            .hosts
            .iter()
            .map(String::as_str)
            .filter(|host| Host::own(host, namespace).is_none())
            .collect();
        if spec.hosts.is_empty() || !foreign.is_empty() {
            let mut hosts = foreign[..foreign.len().min(LISTED_MAX)].join(", ");
            if foreign.len() > LISTED_MAX {
                hosts.push_str(", ...");
            }
            let hosts = if hosts.is_empty() { "no host".to_owned() } else { hosts };
            return Err(format!(
                "{hosts}: not a Service of namespace {namespace}; a VirtualService counts only if all its hosts are ({code})"
            ));
        }
        let hosts: Vec<Host<'_>> = spec.hosts.iter().filter_map(|host| Host::own(host, namespace)).collect();
        self.domains.extend(hosts.iter().filter_map(|host| host.domain).map(Str::from));
        let names: BTreeSet<&str> = hosts.iter().map(|host| host.name).collect();
        let parent = |name: &str| ParentRef {
            group: Some(String::new()),
            kind: Some("Service".to_owned()),
            name: name.to_owned(),
            ..ParentRef::default()
        };
        Ok(names.into_iter().map(parent).collect())
    }

    fn bad(&mut self, path: impl Into<String>, words: impl Into<String>) {
        self.wrong.push(Wrong { path: path.into(), words: words.into() });
    }

    /// A value that has no counterpart.
    fn not_imported(&mut self, path: impl Into<String>, what: &str) {
        self.bad(path, format!("not imported: {what}; use HTTPRoute"));
    }

    /// Fields that have no counterpart.
    fn unread(&mut self, path: &str, fields: &[(&str, Given)]) {
        for (name, _) in fields.iter().filter(|(_, given)| given.0) {
            self.not_imported(format!("{path}.{name}"), name);
        }
    }

    fn at_most(&mut self, path: &str, count: usize, limit: usize) {
        if count > limit {
            self.bad(path, format!("{count} elements, at most {limit} are imported"));
        }
    }
}
