//! Which rule and backend a request has, and what follows: filters, timeouts, retries, balancing, limits.
//!
//! Pure: a decision is a function of a compiled table, the facts of a request, and the time, chance and load that the
//! caller hands in. Semantics are those of the Gateway API for meshes (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute;
//! GEP-1294). Who may call is decided elsewhere; nothing here opens, sends or waits.
//!
//! The way of a request: [`Table::select`] finds the rule, [`Selected::plan`] the backend or an answer,
//! [`plan::Forward::apply`] changes the head, [`balance`] chooses an endpoint, [`timeout`] and [`retry`] say how
//! long and how often.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod backend;
pub mod balance;
mod compile;
mod draw;
pub mod filter;
pub mod limit;
mod matcher;
pub mod model;
pub mod outlier;
pub mod plan;
mod precedence;
mod request;
pub mod retry;
mod rule;
mod select;
pub mod session;
mod stream;
mod table;
pub mod timeout;

pub use backend::{Backend, Failure};
pub use compile::{Effect, PathFault, RuleError, RuleFault};
pub use matcher::PatternError;
pub use plan::{Answer, Forward, Plan};
pub use request::{Headers, Hidden, Request, split_target};
pub use rule::{Rule, RuleId};
pub use select::{Selected, Side};
pub use table::{FrontendRoutes, RouteKind, RouteSet, Table};
