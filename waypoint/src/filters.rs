//! What a rule's filters do to a request on its way, and the copies that they send elsewhere.
//!
//! A mirror never delays or changes the request itself: it gets a copy when the body is complete and short enough,
//! else nothing, and nobody reads its answer but to the end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ambit_route::Forward;
use ambit_route::filter::{RequestHead, is_mirrored};
use ambit_route::model::Target;
use ambit_runtime::{clock, tasks};
use ambit_types::AppProtocol;
use hyper::body::Body as _;

use crate::random;
use crate::request::Head;
use crate::request::body::{Replay, Upload};
use crate::terminate::Call;
use crate::upstream::{Caller, Sending};

/// Longest time a copy may take, the wait for its body included.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(30);

/// Changes the head of a request; answers with the copies that the steps ask for, each as the head was then.
pub(crate) fn apply<R: RequestHead + Clone>(forward: &Forward<'_>, head: &mut R) -> Vec<(Target, R)> {
    let mut copies = Vec::new();
    forward.apply(head, |mirror, head| {
        if is_mirrored(mirror, random::number()) {
            copies.push((mirror.target.clone(), head.clone()));
        }
    });
    copies
}

/// Counts a copy that is not sent because policies refuse it.
pub(crate) fn refused() {
    metrics::counter!("ambit_waypoint_mirrors_total", "outcome" => "refused").increment(1);
}

/// Sends copies.
pub(crate) fn send(copies: Vec<(Target, Head)>, call: &Arc<Call>, body: Option<&Arc<Replay>>) {
    for (target, head) in copies {
        let Ok(place) = call.waypoint.mirrors.clone().try_acquire_owned() else {
            metrics::counter!("ambit_waypoint_mirrors_total", "outcome" => "overflow").increment(1);
            continue;
        };
        let (call, body) = (call.clone(), body.cloned());
        tasks::spawn("waypoint-mirror", async move {
            let _place = place;
            let sent = tokio::time::timeout(MIRROR_TIMEOUT, mirror(&call, &target, head, body)).await;
            let outcome = if sent == Ok(Some(())) { "sent" } else { "lost" };
            metrics::counter!("ambit_waypoint_mirrors_total", "outcome" => outcome).increment(1);
        });
    }
}

/// Sends one copy; none if it could not be sent, or its body was too long to be held.
async fn mirror(call: &Call, target: &Target, head: Head, body: Option<Arc<Replay>>) -> Option<()> {
    let upload = match body {
        Some(body) => Upload::Copy(body.whole().await?),
        None => Upload::Empty,
    };
    // As it is now: the body may have taken long to arrive.
    let state = call.waypoint.state();
    let destination = call.waypoint.upstream.destination(&state, &call.target, Some(target))?;
    let view = destination.view(&state);
    let endpoint = view.endpoint(view.pick_any(&[], random::number(), clock::monotonic())?);
    let caller = Caller { peer: Some(&call.peer.identity), address: call.peer.address, id: call.id };
    let is_http2 = matches!(endpoint.protocol, AppProtocol::Http2 | AppProtocol::Grpc);
    let request = head.request(is_http2, upload)?;
    let sending = Sending {
        waypoint: &call.waypoint,
        state: &state,
        destination: &destination,
        policy: &view.policy,
        endpoint,
        caller: &caller,
        is_http2,
    };
    let mut body = sending.send(request).await.ok()?.into_body();
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    Some(())
}
