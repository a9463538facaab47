//! May this peer connect, may this request pass? Authorization, decided and explained by one evaluation.
//!
//! Pure: a decision is a function of the policies and the facts of a connection or request. No identity is ever taken
//! from an address. What cannot be evaluated, or has not arrived, denies. Trust between domains is settled by TLS
//! before anybody asks here.
//!
//! L4, for every node's proxy, is at the front: [`decide()`] and [`explain()`]. L7, for waypoints, is in [`http`], with
//! [`normalize`] for what a request asks for and [`jwt`] for who a token says is asking.

pub mod decide;
pub mod explain;
pub mod http;
pub mod jwt;
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
