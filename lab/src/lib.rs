//! ambit-lab.
