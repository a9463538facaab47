//! The `ambit` command line: one module a command, and how they all speak to people and to scripts.

pub mod bundle;
pub mod cmd;
pub mod out;
