//! Which rules of a list may agree with a request: those that are found under its own path, peer, host and the like,
//! and those that cannot be found so.
//!
//! Built with the list. Each rule stands under the values of one attribute that it cannot agree without: the attribute
//! that it shares with the fewest other rules. What is found is only a candidate; the matcher compares all of it, so
//! that a hash shared by two texts costs time and changes nothing.
//!
//! The cost of a request grows with the candidates and with the attributes and lengths of prefixes in use, not with
//! the rules. Nothing is allocated for a list of up to [`INLINE_RULES_MAX`] rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::facts::Facts;
use super::model::{Attribute, Clause, Policy, Rule};

mod hash;
mod key;

use hash::{Hash, Side, Table};
use key::Key;

/// Rules of a list whose candidates are gathered without allocating.
const INLINE_RULES_MAX: usize = WORDS_INLINE * WORD;
const WORDS_INLINE: usize = 16;
/// Most entries a rule may cost or share, as a multiple of the rules: what more rules than that stand beside is not
/// worth looking for.
const ENTRIES_FACTOR: usize = 1;
const WORD: usize = 64;

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

/// Values of one attribute, with none of which a rule can agree.
struct Need<'r> {
    attribute: Attribute,
    keys: Vec<Key<'r>>,
}

/// Where the hashes of each attribute begin, so that equal texts of two attributes differ.
type Seeds = BTreeMap<Attribute, Hash>;

impl Index {
    /// Whether facts are complete enough to look rules up by them. What is not known agrees wherever that refuses, and
    /// is found under nothing.
    pub(super) fn serves(facts: &Facts<'_>) -> bool {
        facts.request().is_some_and(|request| request.remote.is_some())
    }

    /// Builds the index of a list; none if there is nothing to find rules by, or more of them than can be counted.
    pub(super) fn new(policies: &[Arc<Policy>]) -> Option<Self> {
        let needs: Vec<Vec<Need<'_>>> =
            policies.iter().flat_map(|policy| &policy.rules).map(needs_of_rule).collect();
        let seeds = seeds(&needs);
        let shares = shares(&needs, &seeds);
        let mut indexed: BTreeMap<&Attribute, Indexed> = BTreeMap::new();
        let mut entries = Vec::new();
        let worth_max = needs.len() * ENTRIES_FACTOR;
        let mut always = vec![0u64; needs.len().div_ceil(WORD)];
        for (at, needs) in needs.iter().enumerate() {
            let cost =
                |need: &Need<'_>| need.hashes(&seeds).filter_map(|hash| shares.get(&hash)).sum::<usize>();
            let costs = needs.iter().map(|need| (cost(need), need));
            let Some((_, best)) = costs.min_by_key(|(cost, _)| *cost).filter(|(cost, _)| *cost <= worth_max)
            else {
                always[at / WORD] |= 1 << (at % WORD);
                continue;
            };
            let number = u32::try_from(at).ok()?;
            entries.extend(best.hashes(&seeds).map(|hash| (hash, number)));
            let seed = *seeds.get(&best.attribute)?;
            let one = indexed.entry(&best.attribute).or_insert_with(|| Indexed::new(&best.attribute, seed));
            best.keys.iter().for_each(|key| one.note(key));
        }
        let attributes: Box<[Indexed]> = indexed.into_values().collect();
        let rules = Table::new(entries)?;
        let index = Self { places: places(policies)?, attributes, rules, always: always.into() };
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

impl Need<'_> {
    fn hashes(&self, seeds: &Seeds) -> impl Iterator<Item = u32> {
        let seed = seeds.get(&self.attribute).copied();
        self.keys.iter().filter_map(move |key| seed.map(|seed| seed.of(key.side, &key.text)))
    }
}

impl Indexed {
    fn new(attribute: &Attribute, seed: Hash) -> Self {
        let (prefixes, suffixes) = (BTreeSet::new(), BTreeSet::new());
        Self { attribute: attribute.clone(), seed, exact_max: None, prefixes, suffixes }
    }

    fn note(&mut self, key: &Key<'_>) {
        let length = key.text.len();
        match key.side {
            Side::Whole => self.exact_max = self.exact_max.max(Some(length)),
            Side::Start => drop(self.prefixes.insert(length)),
            Side::End => drop(self.suffixes.insert(length)),
        }
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

fn needs_of_rule(rule: &Rule) -> Vec<Need<'_>> {
    rule.clauses.iter().flat_map(needs_of_clause).collect()
}

/// Attributes that every alternative of a clause asks for, with the values of all of them.
fn needs_of_clause(clause: &Clause) -> Vec<Need<'_>> {
    let mut alternatives = clause.alternatives.iter().map(|conditions| {
        let keyed = conditions.iter().filter_map(|one| key::keys(one).map(|keys| (one.attribute(), keys)));
        keyed.collect::<BTreeMap<_, _>>()
    });
    let Some(first) = alternatives.next() else { return Vec::new() };
    let all = alternatives.fold(first, |mut common, mut other| {
        common.retain(|attribute, keys| {
            let further = other.remove(attribute);
            keys.extend(further.iter().flatten().cloned());
            further.is_some()
        });
        common
    });
    all.into_iter().map(|(attribute, keys)| Need { attribute, keys }).collect()
}

fn seeds(rules: &[Vec<Need<'_>>]) -> Seeds {
    let attributes: BTreeSet<&Attribute> = rules.iter().flatten().map(|need| &need.attribute).collect();
    (0..).zip(attributes).map(|(number, attribute)| (attribute.clone(), Hash::new(number))).collect()
}

/// How many rules could stand under each hash.
fn shares(rules: &[Vec<Need<'_>>], seeds: &Seeds) -> BTreeMap<u32, usize> {
    let mut shares = BTreeMap::new();
    for hash in rules.iter().flatten().flat_map(|need| need.hashes(seeds)) {
        *shares.entry(hash).or_default() += 1;
    }
    shares
}
