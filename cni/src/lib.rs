//! The node agent: which pods of this node are enrolled, the packet rules inside their namespaces, and the hand-over
//! of those namespaces to ztunnel.
//!
//! It changes nothing outside the namespaces of enrolled pods, ends no TLS and reads nothing that a remote peer sent.

pub mod app;
pub mod config;
pub mod datapath;
pub mod enrolment;
pub mod handoff;
pub mod pod;
pub mod reconcile;
pub mod rules;
pub mod sandbox;
pub mod source;
pub mod view;
