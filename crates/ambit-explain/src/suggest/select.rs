//! Which workloads share a policy, and the fewest labels that pick exactly them.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::Str;

use super::{Member, Wants};

/// Labels that differ between replicas of one thing, or between its roll-outs.
const FLEETING: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];
/// Labels that name a thing best, the best one first.
const NAMING: [&str; 4] = ["app", "app.kubernetes.io/name", "k8s-app", "app.kubernetes.io/instance"];
/// Most labels that a selector is searched among.
const LABELS_MAX: usize = 12;
/// Most labels of a selector that is searched for; beyond that, all that the workloads share are taken.
const SELECTOR_MAX: usize = 3;
/// Longest stem of a policy's name.
const STEM_MAX: usize = 40;

/// Workloads that share a policy.
pub(super) struct Group {
    /// What to call it.
    pub(super) name: String,
    /// Labels that pick them.
    pub(super) selector: BTreeMap<Str, Str>,
    /// What was used of any of them.
    pub(super) wants: Wants,
}

/// Members with the same lasting labels, or with the same wants.
struct Set {
    members: BTreeSet<usize>,
    wants: Wants,
}

/// The groups that need a policy, by name. What cannot be told apart by labels is noted.
pub(super) fn groups(members: &[Member], wants: &[Wants], notes: &mut Vec<String>) -> Vec<Group> {
    let alike = alike(members, wants);
    let mut of_wants: BTreeMap<&Wants, Vec<&Set>> = BTreeMap::new();
    for set in alike.iter().filter(|set| !set.wants.is_empty()) {
        of_wants.entry(&set.wants).or_default().push(set);
    }
    let mut groups = Vec::new();
    for (wants, sets) in of_wants {
        let all: BTreeSet<usize> = sets.iter().flat_map(|set| &set.members).copied().collect();
        let exact = selector(members, &all);
        match exact {
            Some(selector) => groups.push(group(members, &all, selector, wants.clone())),
            None => {
                let each = sets.iter().map(|set| one(members, set, notes));
                groups.extend(each.collect::<Vec<_>>());
            }
        }
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    groups
}

/// Members by their lasting labels.
fn alike(members: &[Member], wants: &[Wants]) -> Vec<Set> {
    let mut sets: BTreeMap<BTreeMap<&Str, &Str>, Set> = BTreeMap::new();
    for (at, (member, wants)) in members.iter().zip(wants).enumerate() {
        let empty = || Set { members: BTreeSet::new(), wants: Wants::new() };
        let set = sets.entry(lasting(member)).or_insert_with(empty);
        set.members.insert(at);
        for (caller, ports) in wants {
            set.wants.entry(caller.clone()).or_default().extend(ports);
        }
    }
    sets.into_values().collect()
}

/// The group of one set; if no labels pick exactly it, those that come nearest.
fn one(members: &[Member], set: &Set, notes: &mut Vec<String>) -> Group {
    let exact = selector(members, &set.members);
    let selector = exact.unwrap_or_else(|| {
        let nearest = owned(&shared(members, &set.members));
        let caught = (0..members.len()).filter(|at| picks(&nearest, &members[*at]));
        let others: Vec<&str> =
            caught.filter(|at| !set.members.contains(at)).map(|at| &*members[at].name).collect();
        let name = name_of(members, &set.members);
        notes.push(format!(
            "no labels tell {name} from {}, so that what is allowed to it is allowed to them too",
            others.join(", ")
        ));
        nearest
    });
    group(members, &set.members, selector, set.wants.clone())
}

fn group(members: &[Member], of: &BTreeSet<usize>, selector: BTreeMap<Str, Str>, wants: Wants) -> Group {
    let named = NAMING.iter().find_map(|label| selector.get(*label)).map(|value| &**value);
    let name = named.map_or_else(|| name_of(members, of), ToOwned::to_owned);
    Group { name: stem(&name), selector, wants }
}

fn name_of(members: &[Member], of: &BTreeSet<usize>) -> String {
    of.first().map_or_else(String::new, |at| members[*at].name.to_string())
}

/// The fewest labels that pick exactly these members; none at all if they are everybody.
fn selector(members: &[Member], wanted: &BTreeSet<usize>) -> Option<BTreeMap<Str, Str>> {
    if wanted.len() == members.len() {
        return Some(BTreeMap::new());
    }
    let mut shared: Vec<(&Str, &Str)> = shared(members, wanted).into_iter().collect();
    shared.sort_by_key(|(name, _)| (rank(name), name.len()));
    shared.truncate(LABELS_MAX);
    (1..=SELECTOR_MAX.min(shared.len())).find_map(|size| {
        let mut chosen = Vec::new();
        choose(&shared, size, &mut chosen, &mut |labels| {
            let labels = owned_of(labels);
            let picked = (0..members.len()).filter(|at| picks(&labels, &members[*at]));
            (picked.collect::<BTreeSet<_>>() == *wanted).then_some(labels)
        })
    })
}

/// Tries every choice of `size` labels in their order until one is taken.
fn choose<'l, T>(
    labels: &[(&'l Str, &'l Str)],
    size: usize,
    chosen: &mut Vec<(&'l Str, &'l Str)>,
    take: &mut impl FnMut(&[(&'l Str, &'l Str)]) -> Option<T>,
) -> Option<T> {
    if size == 0 {
        return take(chosen);
    }
    for (at, label) in labels.iter().enumerate() {
        chosen.push(*label);
        let taken = choose(&labels[at + 1..], size - 1, chosen, take);
        chosen.pop();
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// Labels that all of them have.
fn shared<'m>(members: &'m [Member], of: &BTreeSet<usize>) -> BTreeMap<&'m Str, &'m Str> {
    let mut all = of.iter().map(|at| lasting(&members[*at]));
    let Some(mut shared) = all.next() else { return BTreeMap::new() };
    for labels in all {
        shared.retain(|name, value| labels.get(name).is_some_and(|held| *held == *value));
    }
    shared
}

/// Its labels but those that differ between replicas.
fn lasting(member: &Member) -> BTreeMap<&Str, &Str> {
    member.labels.iter().filter(|(name, _)| !FLEETING.contains(&&***name)).collect()
}

fn rank(label: &Str) -> usize {
    NAMING.iter().position(|name| *name == &**label).unwrap_or(NAMING.len())
}

fn picks(selector: &BTreeMap<Str, Str>, member: &Member) -> bool {
    selector.iter().all(|(name, value)| member.labels.get(name) == Some(value))
}

fn owned(labels: &BTreeMap<&Str, &Str>) -> BTreeMap<Str, Str> {
    labels.iter().map(|(name, value)| ((*name).clone(), (*value).clone())).collect()
}

fn owned_of(labels: &[(&Str, &Str)]) -> BTreeMap<Str, Str> {
    labels.iter().map(|(name, value)| ((*name).clone(), (*value).clone())).collect()
}

/// A text as part of an object's name.
fn stem(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let text: String = text.to_ascii_lowercase().chars().map(allowed).take(STEM_MAX).collect();
    let text = text.trim_matches('-');
    if text.is_empty() { "workload".to_owned() } else { text.to_owned() }
}
