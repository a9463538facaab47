//! The pods of this node: handed over by the node agent, each with listeners in its own namespace.

pub mod accept;
pub mod protocol;
#[cfg(test)]
mod tests;
pub mod workloads;

pub use workloads::{PodInfo, Workloads};
