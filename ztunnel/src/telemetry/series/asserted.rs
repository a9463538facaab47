//! What ends that discovery does not know call themselves (baggage): some names of each identity, and no more.
//!
//! An honest peer has one name, that of its controller; what an identity makes up takes room from nobody but itself.

use std::collections::BTreeMap;

use ambit_types::Identity;

use crate::telemetry::labels::{Asserted as Name, Key};

/// Names of one identity: its controllers of this day, with some to spare.
pub const NAMES_MAX: usize = 8;

/// Pairs of one identity under names of its own: with as many pods of the node.
const PAIRS_OF_ONE_MAX: usize = 200;

/// Pairs of all of them together.
const PAIRS_MAX: usize = 1000;

/// Names in use, by who uses them.
#[derive(Debug, Default)]
pub(super) struct Asserted {
    /// Pairs under each name; nobody's where no identity was proven.
    names: BTreeMap<Option<Identity>, BTreeMap<Name, usize>>,
    pairs: usize,
}

impl Asserted {
    /// Whether a pair that is new may be told under the names in its key; always if there are none.
    pub(super) fn has_room(&self, key: &Key) -> bool {
        let fits = |(identity, name): (Option<&Identity>, &Name)| {
            let Some(names) = self.names.get(&identity.cloned()) else { return true };
            let is_new = !names.contains_key(name);
            !(is_new && names.len() >= NAMES_MAX) && names.values().sum::<usize>() < PAIRS_OF_ONE_MAX
        };
        let mut asserted = key.asserted().peekable();
        asserted.peek().is_none() || (self.pairs < PAIRS_MAX && asserted.all(fits))
    }

    /// Notes a pair; nothing if its ends are known.
    pub(super) fn add(&mut self, key: &Key) {
        for (identity, name) in key.asserted() {
            let names = self.names.entry(identity.cloned()).or_default();
            *names.entry(name.clone()).or_default() += 1;
            self.pairs += 1;
        }
    }
}
