//! What objects owe each other: uniqueness and references.

use std::collections::BTreeMap;

use crate::kind::ObjectKey;
use crate::object::Located;
use crate::problem::Problem;

/// Namespaces that exist without an object, as in a cluster with a mesh.
pub const BUILT_IN_NAMESPACES: &[&str] = &["default", "kube-system", "istio-system"];

/// Everything wrong between the objects of a set; an object defined twice is reported at its later definition.
pub fn check_set(objects: &[Located]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut first: BTreeMap<&ObjectKey, &Located> = BTreeMap::new();
    for object in objects {
        if let Some(earlier) = first.get(&object.key) {
            let mut problem = object.problem("metadata.name", "the object is defined twice");
            problem.other = Some(earlier.location.clone());
            problems.push(problem);
        } else {
            first.insert(&object.key, object);
        }
    }
    problems
}
