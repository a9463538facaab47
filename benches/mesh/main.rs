//! `cargo bench -p ambit-benches`: Ambit against no mesh and against HAProxy, in the lab's topology.
//!
//! Only the entry; what is measured, and how, is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ambit_benches::main()
}
