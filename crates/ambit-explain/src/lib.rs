//! What happens to a connection or request, and why: the one decision engine behind `explain`, `policy test`,
//! `policy diff`, `policy suggest`, the strict report and offline replay.
//!
//! Pure, and no second implementation of anything: it asks the functions that decide in ztunnel and waypoint
//! (`plan_outbound`, `plan_inbound_*`, `ambit_state::explain`, `ambit_state::waypoint`, `ambit_policy::http::explain`,
//! `Table::select`) in the order in which a connection meets them, on the snapshots that those programs hold or on
//! what the control plane would send them, and writes down each answer as a [`Hop`].
//!
//! What cannot be known without asking somebody (a signature, an external authorizer, the network) is never guessed:
//! it is listed in [`Explanation::assumed`], and the verdict holds if it is as assumed there.

pub mod compiled;
mod destination;
pub mod diff;
mod explanation;
mod flow;
mod l7;
mod legs;
pub mod lint;
mod mesh;
mod nearest;
mod question;
mod source;
pub mod suggest;
#[cfg(test)]
mod tests;
mod unkept;
mod view;
mod walk;

pub use compiled::Compiled;
pub use explanation::{
    Action, Code, DecidedBy, Explanation, Hop, Nearest, Onward, Outcome, PolicyConsidered, Routed, Step,
    Verdict, Way,
};
pub use flow::{Flow, FlowEnd, FlowHttp};
pub use legs::join;
pub use question::{Destination, HttpQuestion, Question, QuestionError, Source};
pub use view::{Certificate, Settings, View};

/// What happens if `question` is asked of the mesh as `view` has it: the whole way, hop by hop.
///
/// The way goes on behind the first refusal, so that it is told what else would be in the way; the verdict, the code
/// and [`Explanation::decided_by`] are those of the first.
pub fn explain(view: &View<'_>, question: &Question) -> Explanation {
    walk::walk(view, question)
}

/// What would happen now to something that was seen: the same as [`explain()`] of [`Flow::question`].
///
/// # Errors
/// [`QuestionError`] if the record says too little to ask again: neither a workload nor an address at one of its ends,
/// or no port.
pub fn replay(view: &View<'_>, flow: &Flow) -> Result<Explanation, QuestionError> {
    Ok(explain(view, &flow.question()?))
}
