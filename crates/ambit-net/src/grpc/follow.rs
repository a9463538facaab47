//! Keeping a discovery stream: opens it, hands over what comes, sends what is answered, and begins anew when it ends.
//!
//! Whose resources these are and what becomes of them is the [`Subscriber`]'s. Every failure waits before the next
//! attempt, whatever it was.

use std::error::Error;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::Reason;
use ambit_xds::client::backoff::{self, Backoff};
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tracing::{debug, info, warn};

use super::channel::{Caller, Target};
use super::xds_stream::{StreamError, XdsStream};

/// Who subscribes: decides what is asked, and puts in force what is answered.
pub trait Subscriber: Send {
    /// A stream is about to be opened: the requests to send first, in this order.
    fn begin(&mut self) -> Vec<DeltaDiscoveryRequest>;

    /// Puts a response in force, before it returns; the acknowledgement, if there is one to send.
    fn respond(&mut self, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest>;

    /// The stream is over, or did not come about. What is known stays in force.
    fn ended(&mut self);
}

/// Keeps a stream to `target` for ever; `draw` is uniform over all of `u64` and spreads the attempts. May be dropped.
pub async fn follow<S: Subscriber>(target: Target, caller: Caller, mut subscriber: S, draw: fn() -> u64) {
    let mut backoff = Backoff::new(backoff::Limits::default());
    loop {
        let mut answered = None;
        let ended = stream(&target, &caller, &mut subscriber, &mut answered).await;
        // A server that takes streams and never answers is not healthy, however long that lasts.
        let since = |at| clock::monotonic().saturating_duration_since(at);
        let lasted = answered.map_or(Duration::ZERO, since);
        subscriber.ended();
        let reason = match &ended {
            StreamError::Channel(_) => "ConnectionError",
            StreamError::Status(_) | StreamError::Silent => "Error",
            StreamError::Closed => "Complete",
        };
        metrics::counter!("istio_xds_connection_terminations_total", "reason" => reason).increment(1);
        let wait = backoff.after(lasted, u32::try_from(draw() >> 32).unwrap_or(u32::MAX));
        let code = Reason::ControlPlaneUnreachable.code();
        debug!(error = describe(&ended), ?wait, code, "no discovery");
        tokio::time::sleep(wait).await;
    }
}

/// One stream from its first requests to its end; notes when it was first answered.
async fn stream<S: Subscriber>(
    target: &Target,
    caller: &Caller,
    subscriber: &mut S,
    answered: &mut Option<Instant>,
) -> StreamError {
    let mut stream = match XdsStream::open(target, caller, subscriber.begin()).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    info!(address = target.address, "discovery stream open");
    loop {
        let response = match stream.next().await {
            Ok(response) => response,
            Err(error) => {
                warn!(error = describe(&error), "discovery stream ended; what is known stays in force");
                return error;
            }
        };
        answered.get_or_insert_with(clock::monotonic);
        count(&response);
        if let Some(request) = subscriber.respond(response)
            && let Err(error) = stream.send(request).await
        {
            return error;
        }
    }
}

fn count(response: &DeltaDiscoveryResponse) {
    let url = response.type_url.clone();
    let resources = response.resources.iter().filter_map(|one| one.resource.as_ref());
    let bytes: usize = resources.map(|resource| resource.value.len()).sum();
    metrics::counter!("istio_xds_message_bytes_total", "url" => url.clone()).increment(bytes as u64);
    metrics::counter!("istio_xds_message_total", "url" => url).increment(1);
}

/// An error with its causes, once each.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
