//! What is forwarded in place of the path or host a client sent (HTTPURLRewriteFilter).

use std::borrow::Cow;

use ambit_types::Str;
use ambit_types::path::after;

use super::RequestHead;

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPath {
    /// This one.
    Full(Str),
    /// The old one with the segments of a prefix replaced.
    Prefix {
        /// What the rule matched, without a slash at its end; empty for `/`.
        matched: Str,
        /// What takes its place, without a slash at its end.
        replacement: Str,
    },
    /// The old one with the letters of its begin replaced.
    Start {
        /// What the rule matched.
        matched: Str,
        /// What takes its place.
        replacement: Str,
    },
}

/// A new host, a new path, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteTo {
    /// Host.
    pub hostname: Option<Str>,
    /// Path.
    pub path: Option<NewPath>,
}

impl NewPath {
    /// The path in place of this one.
    ///
    /// A path that does not begin with the prefix, because an earlier filter has changed it, stays as it is.
    pub fn of<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        let (matched, replacement) = match self {
            Self::Full(path) => return Cow::Borrowed(path),
            Self::Prefix { matched, replacement } => (&**matched, &**replacement),
            Self::Start { matched, replacement } => {
                return match after(path, matched) {
                    Some(rest) => Cow::Owned(format!("{replacement}{rest}")),
                    None => Cow::Borrowed(path),
                };
            }
        };
        let rest = after(path, matched).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match rest {
            None => Cow::Borrowed(path),
            Some("") if replacement.is_empty() => Cow::Borrowed("/"),
            Some(rest) if replacement.is_empty() => Cow::Borrowed(rest),
            Some("") => Cow::Borrowed(replacement),
            Some(rest) => Cow::Owned(format!("{replacement}{rest}")),
        }
    }
}

impl RewriteTo {
    /// Carries it out.
    pub fn apply(&self, head: &mut impl RequestHead) {
        if let Some(host) = &self.hostname {
            head.set_host(host);
        }
        if let Some(path) = &self.path {
            let path = path.of(head.path()).into_owned();
            head.set_path(&path);
        }
    }
}
