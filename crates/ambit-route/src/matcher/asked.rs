//! A request with what conditions need to know of it, read once however many there are.

use std::borrow::Cow;

use crate::precedence::Map;
use crate::request::{Headers, Request, decoded, query_pairs};

use super::Condition;

/// The query parameters that conditions of a group read, numbered.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_name: Map<Box<[u8]>, usize>,
}

/// A request as conditions see it.
pub(crate) struct Asked<'a, H: ?Sized> {
    /// The request.
    pub(crate) request: &'a Request<'a, H>,
    /// First values by number; empty where no condition reads any.
    query: Vec<Option<Cow<'a, [u8]>>>,
}

impl Slots {
    /// Gives the conditions the numbers of their parameters.
    pub(crate) fn assign(&mut self, conditions: &mut [Condition]) {
        for condition in conditions {
            if let Condition::Query(name, slot, _) = condition {
                let next = self.by_name.len();
                *slot = *self.by_name.entry(name.as_bytes().into()).or_insert(next);
            }
        }
    }
}

impl<'a, H: Headers + ?Sized> Asked<'a, H> {
    /// Reads the query, as far as anybody is interested in it.
    pub(crate) fn new(request: &'a Request<'a, H>, slots: &Slots) -> Self {
        let mut query = vec![None; slots.by_name.len()];
        let mut missing = query.len();
        for (name, value) in request.query.into_iter().flat_map(query_pairs) {
            if missing == 0 {
                break;
            }
            let slot = slots.by_name.get(&*decoded(name)).and_then(|slot| query.get_mut(*slot));
            if let Some(slot) = slot.filter(|slot| slot.is_none()) {
                *slot = Some(decoded(value));
                missing -= 1;
            }
        }
        Self { request, query }
    }

    /// The first value of a parameter.
    pub(crate) fn query_value(&self, slot: usize) -> Option<&[u8]> {
        self.query.get(slot)?.as_deref()
    }
}
