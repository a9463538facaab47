//! What a request must be like.

use std::collections::BTreeMap;

use ambit_types::written::{HttpMatch, NamedMatch, PathMatch, StringMatch, VirtualMatch};

use super::{Import, START};

/// Names that Istio passes over in `headers`, because other fields are for them.
const NO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];
/// Agrees with every value there is.
const ANY: &str = ".*";

/// The one comparison of a string match.
pub(super) enum Comparison<'m> {
    /// Equal.
    Exact(&'m str),
    /// Begins so.
    Prefix(&'m str),
    /// Of this form.
    Regex(&'m str),
    /// None is given.
    Nothing,
    /// Several are, which has been told.
    Several,
}

impl Import<'_> {
    pub(super) fn one_match(&mut self, path: &str, of: &VirtualMatch) -> HttpMatch {
        self.unread(
            path,
            &[
                ("scheme", of.scheme),
                ("authority", of.authority),
                ("port", of.port),
                ("sourceLabels", of.source_labels),
                ("sourceNamespace", of.source_namespace),
                ("gateways", of.gateways),
                ("withoutHeaders", of.without_headers),
                ("statPrefix", of.stat_prefix),
            ],
        );
        if of.ignore_uri_case == Some(true) {
            self.not_imported(format!("{path}.ignoreUriCase"), "paths without regard to case");
        }
        HttpMatch {
            path: of.uri.as_ref().and_then(|uri| self.uri(&format!("{path}.uri"), uri)),
            method: of.method.as_ref().and_then(|method| self.method(&format!("{path}.method"), method)),
            headers: self.headers(&format!("{path}.headers"), &of.headers),
            query_params: self.query(&format!("{path}.queryParams"), &of.query_params),
        }
    }

    /// Which comparison is given; several are wrong.
    pub(super) fn comparison<'m>(&mut self, path: &str, of: &'m StringMatch) -> Comparison<'m> {
        match (of.exact.as_deref(), of.prefix.as_deref(), of.regex.as_deref()) {
            (Some(exact), None, None) => Comparison::Exact(exact),
            (None, Some(prefix), None) => Comparison::Prefix(prefix),
            (None, None, Some(regex)) => Comparison::Regex(regex),
            (None, None, None) => Comparison::Nothing,
            _ => {
                self.bad(path, "one of exact, prefix and regex can be given");
                Comparison::Several
            }
        }
    }

    fn uri(&mut self, path: &str, of: &StringMatch) -> Option<PathMatch> {
        let (kind, value) = match self.comparison(path, of) {
            Comparison::Exact(value) => ("Exact", value),
            Comparison::Prefix(value) => (START, value),
            Comparison::Regex(value) => ("RegularExpression", value),
            Comparison::Nothing => {
                self.bad(path, "one of exact, prefix and regex is missing");
                return None;
            }
            Comparison::Several => return None,
        };
        Some(PathMatch { r#type: Some(kind.to_owned()), value: Some(value.to_owned()) })
    }

    fn method(&mut self, path: &str, of: &StringMatch) -> Option<String> {
        match self.comparison(path, of) {
            Comparison::Exact(method) => Some(method.to_owned()),
            Comparison::Prefix(_) | Comparison::Regex(_) | Comparison::Nothing => {
                self.not_imported(path, "a method other than by exact");
                None
            }
            Comparison::Several => None,
        }
    }

    fn headers(&mut self, path: &str, of: &BTreeMap<String, StringMatch>) -> Vec<NamedMatch> {
        let mut made = Vec::new();
        for (name, wanted) in of {
            let at = format!("{path}[{name}]");
            if name.starts_with(':') || NO_HEADERS.contains(&name.as_str()) {
                self.not_imported(&at, "what is no header");
            }
            made.push(match self.comparison(&at, wanted) {
                Comparison::Exact(value) => named(name, "Exact", value.to_owned()),
                Comparison::Prefix(value) => {
                    named(name, "RegularExpression", format!("{}{ANY}", escaped(value)))
                }
                Comparison::Regex(value) => named(name, "RegularExpression", value.to_owned()),
                Comparison::Nothing | Comparison::Several => named(name, "RegularExpression", ANY.to_owned()),
            });
        }
        made
    }

    fn query(&mut self, path: &str, of: &BTreeMap<String, StringMatch>) -> Vec<NamedMatch> {
        let mut made = Vec::new();
        for (name, wanted) in of {
            let at = format!("{path}[{name}]");
            match self.comparison(&at, wanted) {
                Comparison::Exact(value) => made.push(named(name, "Exact", value.to_owned())),
                Comparison::Regex(value) => made.push(named(name, "RegularExpression", value.to_owned())),
                Comparison::Prefix(_) | Comparison::Nothing => {
                    self.not_imported(at, "a query parameter other than by exact or regex");
                }
                Comparison::Several => {}
            }
        }
        made
    }
}

fn named(name: &str, kind: &str, value: String) -> NamedMatch {
    NamedMatch { r#type: Some(kind.to_owned()), name: name.to_owned(), value }
}

/// A pattern that only this text is of the form of.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
