//! ambit.
