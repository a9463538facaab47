//! The pieces of routes and destinations, each as a message and as the model has it.

pub(super) mod backends;
mod filters;
mod matches;
pub(super) mod persistence;
mod policy;
mod retry;
pub(super) mod rule;

pub(super) use matches::Match;
