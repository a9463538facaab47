//! The certificate authority: who calls, may they have it, sign, and a record of each of the three.

pub mod audit;
pub mod authn;
pub mod callers;
mod csr;
pub mod service;
pub mod sign;
pub mod store;
#[cfg(test)]
mod tests;

pub use audit::Audit;
pub use sign::Authority;
