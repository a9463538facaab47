//! Real TLS and HTTP/2 bytes over 127.0.0.1: what strangers are refused, and how tunnels behave.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells people what it measured")]

mod accept;
mod announced;
mod answers;
mod breakglass;
mod bundles;
mod carried;
mod cli;
mod codes;
mod discovery;
mod ends;
mod floods;
mod hostile;
mod inbound;
mod kept;
mod names;
mod node;
mod outbound;
mod series;
mod settings;
mod silence;
mod store;
mod tools;
mod tunnels;
