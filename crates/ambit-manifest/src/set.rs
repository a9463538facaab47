//! What objects owe each other: uniqueness and references.
//!
//! Whether a single object is right is `validate`'s affair. A selector that matches nothing is no fault: what it
//! should match may come later.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use crate::nearest::nearest;
use crate::object::Located;
use crate::problem::Problem;

mod follow;
mod outline;

pub use follow::CheckedSet;
pub use outline::Outline;

/// Namespaces that exist without an object, as in a cluster with a mesh.
pub const BUILT_IN_NAMESPACES: &[&str] = &[DEFAULT_NAMESPACE, "kube-system", "istio-system"];
/// The service account every namespace has.
const DEFAULT_ACCOUNT: &str = "default";
/// Label that says whose endpoints a slice holds.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Everything wrong between the objects of a set, in the order of their places.
///
/// An object defined twice is reported at its later definition, a reference to nothing at the field that holds it,
/// with the nearest name that exists. A set that changes is better kept as a [`CheckedSet`].
pub fn check_set(objects: &[Located]) -> Vec<Problem> {
    let outlines: Vec<Outline> = objects.iter().map(Outline::of).collect();
    let mut problems = Vec::new();
    let listed = Listed::of(&outlines, &mut problems);
    problems.extend(outlines.iter().flat_map(|outline| problems_of(outline, &listed)));
    problems.sort();
    problems
}

/// What is there.
trait Known {
    fn exists(&self, key: &ObjectKey) -> bool;

    fn has_nodes(&self) -> bool;

    /// Names of the same kind in the same namespace, in order.
    fn names<'k>(&'k self, like: &ObjectKey) -> Box<dyn Iterator<Item = &'k str> + 'k>;

    /// The service that has an address.
    fn holder(&self, ip: IpAddr) -> Option<&Outline>;
}

/// What is wrong with an object among those that are known.
fn problems_of(outline: &Outline, known: &impl Known) -> Vec<Problem> {
    let namespace = outline.key.namespace.as_deref();
    let mut problems = Vec::new();
    for need in &outline.needs {
        let needed = ObjectKey::new(need.kind, namespace, &need.name);
        // A set without any node leaves open which there are.
        if known.exists(&needed) || (need.kind == Kind::Node && !known.has_nodes()) {
            continue;
        }
        let built_in = if need.kind == Kind::Namespace { BUILT_IN_NAMESPACES } else { &[] };
        let names = known.names(&needed).chain(built_in.iter().copied());
        problems.push(outline.lacks(need, nearest(&need.name, names)));
    }
    for address in &outline.addresses {
        if let Some(holder) = known.holder(address.ip).filter(|holder| holder.key != outline.key) {
            problems.push(outline.shares(address, holder));
        }
    }
    problems
}

/// Objects of a list; of several with one name the first counts.
struct Listed<'o> {
    first: BTreeMap<&'o ObjectKey, &'o Outline>,
    holders: BTreeMap<IpAddr, &'o Outline>,
    has_nodes: bool,
}

impl<'o> Listed<'o> {
    fn of(outlines: &'o [Outline], problems: &mut Vec<Problem>) -> Self {
        let mut first: BTreeMap<&ObjectKey, &Outline> = BTreeMap::new();
        let mut holders = BTreeMap::new();
        for outline in outlines {
            match first.get(&*outline.key) {
                Some(earlier) => {
                    problems.push(outline.defined_twice(earlier.location(), "the object is defined twice"));
                }
                None => _ = first.insert(&outline.key, outline),
            }
            for address in &outline.addresses {
                holders.entry(address.ip).or_insert(outline);
            }
        }
        let has_nodes = first.keys().any(|k| k.kind == Kind::Node);
        Self { first, holders, has_nodes }
    }
}

impl Known for Listed<'_> {
    fn exists(&self, key: &ObjectKey) -> bool {
        self.first.contains_key(key)
    }

    fn has_nodes(&self) -> bool {
        self.has_nodes
    }

    fn names<'k>(&'k self, like: &ObjectKey) -> Box<dyn Iterator<Item = &'k str> + 'k> {
        let (kind, namespace) = (like.kind, like.namespace.clone());
        let there = move |key: &&&ObjectKey| key.kind == kind && key.namespace == namespace;
        Box::new(self.first.keys().filter(there).map(|key| key.name.as_str()))
    }

    fn holder(&self, ip: IpAddr) -> Option<&Outline> {
        self.holders.get(&ip).copied()
    }
}
