//! Which rules of a list may agree with a request: those that are found under its own path, peer, host and the like,
//! and those that cannot be found so.
//!
//! Built with the list. Each rule stands under the values of one attribute that it cannot agree without: the attribute
//! that it shares with the fewest other rules. What is found is only a candidate; the matcher compares all of it, so
//! that a hash shared by two texts costs time and changes nothing.
//!
//! The cost of a request grows with the candidates and with the attributes and lengths of prefixes in use, not with
//! the rules. Nothing is allocated for a list of up to 1024 rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::facts::Facts;
use super::model::{Attribute, Clause, Condition, Policy};

mod hash;
mod key;

use hash::{Hash, Side, Table};
use key::Key;

/// Rules that one word has bits for, and words that need no allocating.
const WORD: usize = 64;
const WORDS_INLINE: usize = 16;

/// Where a rule of a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its policy, by position in the list.
    pub(super) policy: u32,
    /// Its position in the policy.
    pub(super) rule: u32,
}

/// The rules of a list, by what they ask for.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Every rule, in the order of evaluation; elsewhere rules are positions in here.
    places: Box<[Place]>,
    attributes: Box<[Indexed]>,
    rules: Table,
    /// A bit for each rule that is not in the table, and so always a candidate.
    always: Box<[u64]>,
}

/// An attribute by which rules are found.
#[derive(Debug, Clone)]
struct Indexed {
    attribute: Attribute,
    seed: Hash,
    /// Longest text that any rule wants exactly.
    exact_max: Option<usize>,
    /// Lengths of the texts that facts have to begin with, ascending.
    prefixes: BTreeSet<usize>,
    /// Lengths of those they have to end with.
    suffixes: BTreeSet<usize>,
}

/// Values of one attribute, one of which a rule cannot agree without.
struct Need {
    /// The attribute's number.
    attribute: usize,
    values: Vec<Hashed>,
}

/// A value that rules ask for.
#[derive(Clone, Copy)]
struct Hashed {
    side: Side,
    length: usize,
    hash: u32,
}

/// Attributes with the numbers that tell equal texts of theirs apart.
#[derive(Default)]
struct Numbers {
    by_attribute: BTreeMap<Attribute, usize>,
}

impl Index {
    /// Whether facts are complete enough to look rules up by them. What is not known agrees wherever that refuses, and
    /// is found under nothing.
    pub(super) fn serves(&self, facts: &Facts<'_>) -> bool {
        let by_remote = || self.attributes.iter().any(|one| one.attribute == Attribute::RemoteIp);
        facts.request().is_some_and(|request| request.remote.is_some() || !by_remote())
    }

    /// Builds the index of a list; none if there is nothing to find rules by, or more of them than can be counted.
    pub(super) fn new(policies: &[Arc<Policy>]) -> Option<Self> {
        let mut numbers = Numbers::default();
        let all: Vec<Vec<Need>> = policies
            .iter()
            .flat_map(|policy| &policy.rules)
            .map(|rule| rule.clauses.iter().flat_map(|clause| numbers.needs(clause)).collect())
            .collect();
        let shares = Shares::of(&all);
        let mut attributes = numbers.attributes();
        let mut entries = Vec::new();
        let mut always = vec![0u64; all.len().div_ceil(WORD)];
        for (at, needs) in all.iter().enumerate() {
            let costs = needs.iter().map(|need| (shares.cost(need), need));
            let cheapest = costs.min_by_key(|(cost, _)| *cost);
            // What leads to more entries than there are rules is not worth looking for.
            let Some((_, best)) = cheapest.filter(|(cost, _)| *cost <= all.len()) else {
                always[at / WORD] |= 1 << (at % WORD);
                continue;
            };
            let rule = u32::try_from(at).ok()?;
            for value in &best.values {
                entries.push((value.hash, rule));
                attributes[best.attribute].note(*value);
            }
        }
        attributes.retain(Indexed::is_used);
        let (rules, attributes, always) = (Table::new(entries)?, attributes.into(), always.into());
        let index = Self { places: places(policies)?, attributes, rules, always };
        (!index.attributes.is_empty()).then_some(index)
    }

    /// Shows `visit` the place of each rule that may agree, in order, until it has seen enough.
    pub(super) fn candidates(&self, facts: &Facts<'_>, mut visit: impl FnMut(Place) -> ControlFlow<()>) {
        let (mut inline, mut allocated) = ([0; WORDS_INLINE], Vec::new());
        let words: &mut [u64] = match inline.get_mut(..self.always.len()) {
            Some(words) => words,
            None => {
                allocated.resize(self.always.len(), 0);
                &mut allocated
            }
        };
        words.copy_from_slice(&self.always);
        let mut mark = |rule: u32| {
            let Ok(rule) = usize::try_from(rule) else { return };
            words[rule / WORD] |= 1 << (rule % WORD);
        };
        for indexed in &self.attributes {
            key::texts(&indexed.attribute, facts, &mut |pieces| {
                indexed.hashes(pieces, |hash| self.rules.get(hash).for_each(&mut mark));
            });
        }
        for (at, word) in words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                let Some(place) = self.places.get(at * WORD + bit) else { return };
                if visit(*place).is_break() {
                    return;
                }
            }
        }
    }
}

impl Indexed {
    fn new(attribute: Attribute, number: usize) -> Self {
        let (prefixes, suffixes) = (BTreeSet::new(), BTreeSet::new());
        Self { attribute, seed: Hash::new(number), exact_max: None, prefixes, suffixes }
    }

    fn note(&mut self, value: Hashed) {
        match value.side {
            Side::Whole => self.exact_max = self.exact_max.max(Some(value.length)),
            Side::Start => drop(self.prefixes.insert(value.length)),
            Side::End => drop(self.suffixes.insert(value.length)),
        }
    }

    fn is_used(&self) -> bool {
        self.exact_max.is_some() || !self.prefixes.is_empty() || !self.suffixes.is_empty()
    }

    /// Every hash under which rules stand that a text may agree with. The text comes in pieces.
    fn hashes(&self, pieces: &[&[u8]], mut hit: impl FnMut(u32)) {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let whole = self.exact_max.is_some_and(|max| total <= max);
        let bytes = pieces.iter().copied().flatten();
        let end = self.read(bytes, if whole { total } else { 0 }, &self.prefixes, Side::Start, &mut hit);
        if whole {
            hit(end.finish(Side::Whole));
        }
        let backwards = pieces.iter().rev().flat_map(|piece| piece.iter().rev());
        self.read(backwards, 0, &self.suffixes, Side::End, &mut hit);
    }

    /// Reads a text as far as the longest of these lengths, and at least so many bytes, and tells the hash at each.
    fn read<'t>(
        &self,
        bytes: impl Iterator<Item = &'t u8>,
        at_least: usize,
        lengths: &BTreeSet<usize>,
        side: Side,
        hit: &mut impl FnMut(u32),
    ) -> Hash {
        let mut hash = self.seed;
        let mut stops = lengths.iter().copied().peekable();
        let reach = lengths.last().copied().unwrap_or_default().max(at_least);
        for (read, byte) in (1..=reach).zip(bytes) {
            hash.write(*byte);
            if stops.next_if_eq(&read).is_some() {
                hit(hash.finish(side));
            }
        }
        hash
    }
}

fn places(policies: &[Arc<Policy>]) -> Option<Box<[Place]>> {
    let each = policies
        .iter()
        .enumerate()
        .flat_map(|(policy, of)| (0..of.rules.len()).map(move |rule| (policy, rule)));
    each.map(|(policy, rule)| {
        Some(Place { policy: u32::try_from(policy).ok()?, rule: u32::try_from(rule).ok()? })
    })
    .collect()
}

impl Numbers {
    /// Attributes that every alternative of a clause asks for, with the values of all of them.
    fn needs(&mut self, clause: &Clause) -> Vec<Need> {
        let mut alternatives = clause.alternatives.iter().map(|conditions| {
            let mut needs: Vec<Need> = conditions.iter().filter_map(|one| self.need(one)).collect();
            needs.sort_by_key(|need| need.attribute);
            needs.dedup_by_key(|need| need.attribute);
            needs
        });
        let Some(first) = alternatives.next() else { return Vec::new() };
        alternatives.fold(first, |mut common, other| {
            common.retain_mut(|need| {
                let further = other.iter().find(|further| further.attribute == need.attribute);
                need.values.extend(further.iter().flat_map(|further| &further.values));
                further.is_some()
            });
            common
        })
    }

    fn need(&mut self, condition: &Condition) -> Option<Need> {
        let keys = key::keys(condition)?;
        let attribute = self.number(condition.attribute());
        let seed = Hash::new(attribute);
        let hashed = |Key { side, text }: &Key<'_>| Hashed {
            side: *side,
            length: text.len(),
            hash: seed.of(*side, text),
        };
        Some(Need { attribute, values: keys.iter().map(hashed).collect() })
    }

    fn number(&mut self, attribute: Attribute) -> usize {
        let next = self.by_attribute.len();
        *self.by_attribute.entry(attribute).or_insert(next)
    }

    /// Every attribute at the place of its number.
    fn attributes(self) -> Vec<Indexed> {
        let mut all: Vec<(Attribute, usize)> = self.by_attribute.into_iter().collect();
        all.sort_by_key(|(_, number)| *number);
        all.into_iter().map(|(attribute, number)| Indexed::new(attribute, number)).collect()
    }
}

/// How many rules could stand under each hash.
struct Shares {
    /// The hash of every value of every rule, ascending.
    hashes: Vec<u32>,
}

impl Shares {
    fn of(rules: &[Vec<Need>]) -> Self {
        let values = rules.iter().flatten().flat_map(|need| &need.values);
        let mut hashes: Vec<u32> = values.map(|value| value.hash).collect();
        hashes.sort_unstable();
        Self { hashes }
    }

    /// How many candidates a need leads to if each of its values comes once.
    fn cost(&self, need: &Need) -> usize {
        let share = |value: &Hashed| {
            let start = self.hashes.partition_point(|hash| *hash < value.hash);
            self.hashes[start..].partition_point(|hash| *hash == value.hash)
        };
        need.values.iter().map(share).sum()
    }
}
