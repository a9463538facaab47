//! May this request pass? L7 authorization of a waypoint, decided and explained by one evaluation.
//!
//! The way of a policy: [`written`] as in a manifest, [`compile()`]d into [`model`], gathered in a [`PolicySet`] for
//! a service, which finds the rules that may agree without trying all of them. The way of a request: its target
//! normalised by [`crate::normalize`], its token verified by [`crate::jwt`], both together [`Facts`], and [`decide()`]
//! says allow, deny or whom to ask. Asking, answering and writing records belong to the waypoint.

mod compile;
mod decide;
mod explain;
mod facts;
mod feature;
mod index;
mod list;
mod matcher;
pub mod model;
mod problem;
pub mod provider;
mod remote;
mod set;
mod template;
mod text;
pub mod written;

#[cfg(test)]
mod tests;

pub use compile::{Options, RULES_MAX, SERVICE_ACCOUNTS_MAX, VALUE_BYTES_MAX, VALUES_MAX, compile};
pub use decide::{Answer, Answers, Ask, Decision, Mark, Verdict, asks_before_token, decide};
pub use explain::{Condition, Explanation, Nearest, PolicyTrace, explain};
pub use facts::{Facts, Headers, Request};
pub use feature::{FEATURES, unknown_features};
pub use matcher::depends_on;
pub use model::{Attribute, Policy};
pub use problem::{Invalid, PathFault, Problem};
pub use remote::{Unreadable, remote_address};
pub use set::{CustomOrder, PolicySet};
