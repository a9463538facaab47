//! `POST /explain`: what would happen to a request, by the state that this waypoint decides by now.
//!
//! L4 policies are the nodes' affair and not known here: of the endpoint's side a ztunnel's `/explain` knows more.

use std::collections::BTreeMap;

use ambit_explain::{Explanation, Question, View};
use ambit_runtime::admin::{Call, Reply};
use http::StatusCode;

use super::Source;

/// Answers a question as JSON; 503 before the waypoint goes by anything.
pub(super) fn explain(source: &Source, call: &Call) -> Reply {
    match answer(source, &call.body) {
        Ok(explanation) => Reply::json(&explanation),
        Err((status, text)) => Reply::text(status, text),
    }
}

/// Answers a question that is the body of a call, or says why not.
pub(crate) fn answer(source: &Source, body: &[u8]) -> Result<Explanation, (StatusCode, String)> {
    let question = read(body).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let Some(waypoint) = source.waypoint.borrow().clone() else {
        let text = "nothing has been told to this waypoint yet\n".to_owned();
        return Err((StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let state = waypoint.state();
    let waypoints = BTreeMap::from([(state.own.workload.uid.clone(), state.clone())]);
    let view = View::new(&state.mesh).with_waypoints(&waypoints);
    Ok(ambit_explain::explain(&view, &question))
}

fn read(body: &[u8]) -> Result<Question, String> {
    let question: Question =
        serde_json::from_slice(body).map_err(|error| format!("the question cannot be read: {error}\n"))?;
    question.check().map_err(|error| format!("{error}\n"))?;
    Ok(question)
}
