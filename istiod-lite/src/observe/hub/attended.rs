//! One proxy that attends: what it says goes where it belongs, and when it leaves everybody learns of it.

use std::sync::Arc;

use ambit_types::Reason;
use ambit_xds::proto::ambit::observe::v1::{
    Acknowledge, End, FromProxy, Pair, ToProxy, from_proxy, to_proxy,
};

use super::{Cause, Hub, Said, Who, lock};
use crate::console::plain;
use crate::observe::aggregates::cut;

/// Longest pair in the log.
const NAMED_CHARS_MAX: usize = 256;

/// A proxy's place; it has left when this is dropped.
#[derive(Debug)]
pub(in crate::observe) struct Attended {
    pub(super) hub: Hub,
    pub(super) number: u64,
    pub(super) who: Arc<Who>,
}

impl Attended {
    /// Takes in a message; what to answer, if anything. `watch` is the id under which refusals are told.
    pub(in crate::observe) fn heard(&self, message: FromProxy, watch: u64) -> Option<ToProxy> {
        let Self { hub, number, who } = self;
        match message.content? {
            // It comes once, before this.
            from_proxy::Content::Hello(_) => {}
            from_proxy::Content::Summary(summary) => {
                let told = summary.number;
                hub.summary(*number, who, summary);
                let acknowledge = Acknowledge { number: told };
                return Some(super::message(0, to_proxy::Content::Acknowledge(acknowledge)));
            }
            from_proxy::Content::Records(records) if records.id == watch => hub.refused(&records.records),
            from_proxy::Content::Records(records) => {
                hub.answered(*number, who, records.id, Said::Records(records.records, records.lost));
            }
            from_proxy::Content::Answer(answer) => {
                hub.answered(*number, who, answer.id, Said::Answer(answer.json));
            }
            from_proxy::Content::Ended(ended) => {
                let why = Some(plain(&ended.error)).filter(|why| !why.is_empty());
                hub.answered(*number, who, ended.id, Said::Ended(why, ended.memory));
            }
        }
        None
    }

    /// An id under which this proxy can be asked apart from all others.
    pub(in crate::observe) fn private_id(&self) -> u64 {
        self.hub.next()
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        lock(&self.hub.inner.proxies).remove(&self.number);
        lock(&self.hub.inner.aggregates).gone(self.number);
        let open: Vec<u64> = lock(&self.hub.inner.asked).keys().copied().collect();
        for id in open {
            self.hub.answered(self.number, &self.who, id, Said::Left);
        }
        metrics::gauge!("ambit_observe_attending").decrement(1.0);
    }
}

/// A pair in words, for the log: as short as it may be, and without what breaks a line.
pub(super) fn named(pair: &Pair) -> String {
    let end = |end: &Option<End>| match end {
        Some(end) if !end.workload.is_empty() => format!("{}/{}", end.namespace, end.workload),
        Some(end) => end.address.clone(),
        None => "?".to_owned(),
    };
    let text = format!("{} -> {} {}", end(&pair.source), end(&pair.destination), pair.service);
    text.chars().filter(|c| !c.is_control()).take(NAMED_CHARS_MAX).collect()
}

/// What a pair says was refused. What only hears of it, the other side tells better.
pub(super) fn refusal(pair: &Pair) -> Option<(Cause, u64)> {
    let count = pair.ended.saturating_add(pair.requests);
    let is_hearsay = pair.code == Reason::TunnelRejected.code();
    if !pair.denied || count == 0 || is_hearsay {
        return None;
    }
    let end = |end: &Option<End>| match end {
        Some(end) if !end.workload.is_empty() => format!("{}/{}", end.namespace, end.workload),
        // Its port would make each connection an incident of its own.
        Some(end) => end.address.rsplit_once(':').map_or(String::new(), |(ip, _)| ip.to_owned()),
        None => String::new(),
    };
    let to = end(&pair.destination);
    let cause = Cause {
        code: cut(pair.code.clone()),
        policy: cut(pair.policy.clone()),
        source: cut(end(&pair.source)),
        destination: cut(if to.is_empty() { pair.service.clone() } else { to }),
        port: u16::try_from(pair.port).unwrap_or(0),
    };
    Some((cause, count))
}
