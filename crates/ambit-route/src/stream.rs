//! Which rule takes a connection that is passed through unread: by the server name of its TLS handshake, or at all.
//!
//! Exact names come before wildcards, longer wildcards before shorter ones, and all before a route without names;
//! among equals the older route wins (TLSRoute, TCPRoute).

use std::borrow::Cow;

use crate::precedence::Map;

/// Rules by server name.
#[derive(Debug, Default)]
pub(crate) struct StreamIndex {
    exact: Map<Box<str>, u32>,
    /// By what follows the star, dot included.
    under: Map<Box<str>, u32>,
    any: Option<u32>,
}

impl StreamIndex {
    /// Adds a rule under a name; rules come in their order of precedence, so that the first one of a name stays.
    pub(crate) fn insert(&mut self, hostname: Option<&str>, rule: u32) {
        let Some(hostname) = hostname.filter(|name| *name != "*") else {
            self.any.get_or_insert(rule);
            return;
        };
        let lower = hostname.to_ascii_lowercase();
        match lower.strip_prefix('*') {
            Some(end) => self.under.entry(end.into()).or_insert(rule),
            None => self.exact.entry(lower.into_boxed_str()).or_insert(rule),
        };
    }

    /// The rule for a connection.
    pub(crate) fn find(&self, server_name: Option<&str>) -> Option<u32> {
        let named = server_name.and_then(|name| {
            let lower = match name.bytes().any(|b| b.is_ascii_uppercase()) {
                true => Cow::Owned(name.to_ascii_lowercase()),
                false => Cow::Borrowed(name),
            };
            let ends = lower.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &lower[at..]);
            let exact = self.exact.get(&*lower);
            exact.or_else(|| ends.into_iter().find_map(|end| self.under.get(end))).copied()
        });
        named.or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_then_longer_wildcards_then_all() {
        let mut index = StreamIndex::default();
        for (name, rule) in
            [(Some("a.x.org"), 0), (Some("*.x.org"), 1), (Some("*.org"), 2), (None, 3), (Some("a.x.org"), 4)]
        {
            index.insert(name, rule);
        }
        for (name, want) in [
            (Some("a.x.org"), 0),
            (Some("A.X.org"), 0),
            (Some("b.x.org"), 1),
            (Some("c.b.x.org"), 1),
            (Some("x.org"), 2),
            (Some("org"), 3),
            (Some(".x.org"), 2),
            (None, 3),
        ] {
            assert_eq!(index.find(name), Some(want), "{name:?}");
        }
    }

    #[test]
    fn without_a_route_for_all_an_unknown_name_has_none() {
        let mut index = StreamIndex::default();
        index.insert(Some("a.org"), 0);
        assert_eq!(index.find(Some("b.org")), None);
        assert_eq!(index.find(None), None);
    }
}
