//! What the proxies see, gathered: they attend beside discovery, tell counts by themselves and records when asked.
//!
//! Counts of pairs are kept for a day in bounded memory, records nowhere: whoever asks for them gets them from the
//! memory of the proxies. What could not be kept or told is counted, and shown with every answer; so is
//! what a proxy may not tell of.

mod aggregates;
mod changes;
mod edges;
mod gathered;
mod hub;
mod incidents;
mod places;
mod service;

pub(crate) use changes::named;
pub use hub::{AskError, Hub, Question};
pub(crate) use places::gateway;
pub use service::AttendService;
