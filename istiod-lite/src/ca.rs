//! The certificate authority: who calls, may they have it, sign, and a record of each of the three; where its keys lie,
//! and how they are replaced.

pub mod audit;
pub mod authn;
pub mod callers;
mod csr;
pub mod keeper;
pub mod ledger;
mod lineage;
pub mod material;
pub mod review;
pub mod rotation;
pub mod secret;
pub mod service;
pub mod sign;
mod status;
pub mod store;
#[cfg(test)]
mod tests;

pub use audit::Audit;
pub use keeper::{Keeper, Signer};
pub use sign::Authority;
