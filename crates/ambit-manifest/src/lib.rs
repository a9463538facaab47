//! Kubernetes manifests as text, turned into typed objects that know where they stand.
//!
//! Reads multi-document YAML (and JSON), checks every object against its type and the API server's rules, and a set
//! of them against each other. Every problem names file, line, column, field and the nearest valid name. An object
//! with a problem is refused whole. Does no I/O; `ambit-folder` reads files and watches them.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod breakglass;
mod de;
pub mod gateway;
pub mod istio;
mod kind;
mod loose;
pub mod mesh;
mod nearest;
mod object;
mod parse;
mod problem;
mod scalar;
mod served;
mod set;
mod tree;
mod validate;
mod yaml;

#[cfg(test)]
mod tests;

pub use kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
pub use loose::{Loose, Other, parse_loosely};
pub use nearest::nearest;
pub use object::{Located, Object};
pub use parse::{Parsed, parse, read_value};
pub use problem::{Location, Problem};
pub use served::{SERVED, read_served, served};
pub use set::{BUILT_IN_NAMESPACES, CheckedSet, Outline, check_set};
pub use tree::{DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX};
pub use yaml::to_yaml;
