//! Another protocol on a connection, such as WebSocket: only after the endpoint has agreed, and then unread.

use std::sync::Arc;

use ambit_net::tunnel::server::spawn_stream;
use ambit_types::Reason;
use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use super::answer::Refusal;
use super::body::Outgoing;
use super::sanitize::{Wishes, clean_response};
use super::{Client, Finish};
use crate::upstream::Download;

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 16 << 10;

/// Joins both connections once the client has been told that the endpoint agrees.
///
/// # Errors
/// 502 if nobody asked for another protocol, or it is another than the one asked for.
pub(super) fn switch(
    client: &Arc<Client>,
    wishes: &Wishes,
    near: OnUpgrade,
    mut response: Response<Download>,
    finish: &mut Finish,
) -> Result<Response<Outgoing>, Refusal> {
    let agreed = response.headers().get(UPGRADE).cloned();
    let is_asked = wishes
        .upgrade
        .as_ref()
        .zip(agreed.as_ref())
        .is_some_and(|(asked, agreed)| asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes()));
    let (Some(protocol), true) = (agreed, is_asked) else {
        return Err(Refusal::new(502, Some(Reason::ConnectRefused), "upgrade_not_asked_for"));
    };
    let far = hyper::upgrade::on(&mut response);
    let (mut parts, body) = response.into_parts();
    let connection = body.into_connection();
    clean_response(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let drain = client.call.waypoint.drain.clone();
    let endpoint = finish.record.endpoint.clone();
    let ticket = finish.ticket.take();
    let work = async move {
        let _ticket = ticket;
        let (far, ()) = tokio::join!(far, async {
            if let Some(connection) = connection {
                connection.finish().await;
            }
        });
        let (Ok(near), Ok(far)) = (near.await, far) else { return };
        let cut = async {
            match &endpoint {
                Some(endpoint) => endpoint.cut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = copy(near, far) => {}
            () = cut => {}
        }
    };
    let forced = drain.clone();
    spawn_stream(&drain, async move {
        tokio::select! {
            () = work => {}
            () = forced.forced() => {}
        }
    });
    Ok(Response::from_parts(parts, Outgoing::own(Bytes::new())))
}

async fn copy(near: Upgraded, far: Upgraded) {
    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
    let moved = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES).await;
    if let Ok((up, down)) = moved {
        metrics::counter!("ambit_waypoint_upgraded_bytes_total", "direction" => "up").increment(up);
        metrics::counter!("ambit_waypoint_upgraded_bytes_total", "direction" => "down").increment(down);
    }
}
