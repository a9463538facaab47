//! Labels and annotations, of which a mesh holds more than of anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_types::Str;

use crate::pool::Shared;

/// Labels or annotations, by key.
///
/// They never change and copies are one allocation together: a tree of a few words takes some 400 bytes, which each
/// pod of a large cluster would have twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Labels(Arc<[(Str, Str)]>);

impl Labels {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(held, _)| (**held).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Str, &Str)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// As a tree, for those who change it.
    pub fn to_map(&self) -> BTreeMap<Str, Str> {
        self.0.iter().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Shared for Labels {
    fn has_copies(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The last of two values of one key counts.
impl FromIterator<(Str, Str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Str, Str)>>(pairs: I) -> Self {
        pairs.into_iter().collect::<BTreeMap<Str, Str>>().into()
    }
}

impl From<BTreeMap<Str, Str>> for Labels {
    fn from(sorted: BTreeMap<Str, Str>) -> Self {
        Self(sorted.into_iter().collect())
    }
}

impl<const N: usize> From<[(Str, Str); N]> for Labels {
    fn from(pairs: [(Str, Str); N]) -> Self {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect()
    }

    #[test]
    fn a_key_is_found_and_its_last_value_counts() {
        let all = labels(&[("b", "2"), ("a", "1"), ("c", "3"), ("a", "4")]);
        let found: Vec<_> = ["a", "b", "c", "d", ""].map(|key| all.get(key).map(|v| &**v)).to_vec();
        assert_eq!(found, [Some("4"), Some("2"), Some("3"), None, None]);
        assert_eq!(all.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((all.len(), all.is_empty(), Labels::new().is_empty()), (3, false, true));
    }

    #[test]
    fn only_what_is_the_same_is_shared() {
        let (mut one, mut same, mut other) =
            (labels(&[("a", "1")]), labels(&[("a", "1")]), labels(&[("a", "2")]));
        let mut pool = Pool::default();
        for each in [&mut one, &mut same, &mut other] {
            assert!(!each.has_copies());
            pool.share(each);
        }
        assert!(Arc::ptr_eq(&same.0, &one.0) && one.has_copies());
        assert_eq!(other, labels(&[("a", "2")]));
    }
}
