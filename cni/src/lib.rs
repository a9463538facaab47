//! The node agent: which pods of this node are enrolled, the packet rules inside their namespaces, the hand-over of
//! those namespaces to ztunnel, and the CNI plugin that holds a pod back until all that is done.
//!
//! It changes nothing outside the namespaces of enrolled pods but the node's list of CNI plugins, and reads nothing that
//! a remote peer sent except an API server's objects.

pub mod app;
pub mod attend;
pub mod config;
pub mod datapath;
pub mod enrolment;
pub mod handoff;
pub mod install;
pub mod nearby;
pub mod plugin;
pub mod pod;
pub mod reconcile;
pub mod removal;
pub mod rules;
pub mod sandbox;
pub mod source;
pub mod view;
