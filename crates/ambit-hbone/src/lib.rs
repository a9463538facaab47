//! ambit-hbone.
