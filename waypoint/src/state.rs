//! What a waypoint goes by at one moment.
//!
//! It is pure and lives beside the snapshot that it contains, so that who explains a decision asks the code that makes
//! it.

pub use ambit_state::waypoint::{Applied, Governing, Own, Policies, State, place};
