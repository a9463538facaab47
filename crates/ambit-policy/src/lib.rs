//! May this peer connect? L4 authorization, decided and explained by one evaluation.
//!
//! Pure: a decision is a function of the policies and the facts of a connection. No identity is ever taken from
//! an address. What cannot be evaluated, or has not arrived, denies.

pub mod model;
