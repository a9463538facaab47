//! May this peer connect? L4 authorization, decided and explained by one evaluation.
//!
//! Pure: a decision is a function of the policies and the facts of a connection. No identity is ever taken from
//! an address. What cannot be evaluated, or has not arrived, denies. Trust between domains is settled by TLS
//! before anybody asks here.

pub mod decide;
pub mod explain;
mod matcher;
pub mod model;
pub mod normalize;
mod set;
#[cfg(test)]
mod shorthand;
mod trace;

pub use decide::{Decision, DryRun, Facts, Verdict, decide};
pub use explain::{Explanation, explain};
pub use matcher::Attribute;
pub use set::PolicySet;
