//! `grpc.health.v1.Health/Check`, the one call a gRPC probe makes.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::send::{beside, with_causes};

/// The method's path.
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read, in bytes; the message itself has two.
const ANSWER_BYTES_MAX: usize = 4096;
/// Bytes before a gRPC message: a flag and the length.
const PREFIX_BYTES: usize = 5;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether the service is SERVING.
pub(super) async fn check<S>(stream: S, authority: &str, service: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |e: h2::Error| format!("speaking gRPC: {}", with_causes(&e));
    let (requests, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let status = beside(connection, call(requests, authority, service)).await?;
    if status == SERVING { Ok(()) } else { Err(format!("gRPC health status {}", name_of(status))) }
}

async fn call(
    requests: h2::client::SendRequest<Bytes>,
    authority: &str,
    service: &str,
) -> Result<i32, String> {
    let failed = |e: h2::Error| format!("speaking gRPC: {}", with_causes(&e));
    let request = Request::post(format!("http://{authority}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.35")
        .body(())
        .map_err(|e| e.to_string())?;
    let mut requests = requests.ready().await.map_err(failed)?;
    let (response, mut body) = requests.send_request(request, false).map_err(failed)?;
    body.send_data(framed(service), true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    // A call that fails at once has its status in the headers.
    judge(response.headers())?;
    let mut body = response.into_body();
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        // Nothing to tell if the connection is gone: the next read says so.
        let _ = body.flow_control().release_capacity(data.len());
        if answer.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(format!("a gRPC health answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        answer.put(data);
    }
    if let Some(trailers) = body.trailers().await.map_err(failed)? {
        judge(&trailers)?;
    }
    let message = answer.get(PREFIX_BYTES..).ok_or("a gRPC health answer without a message")?;
    let message = <HealthCheckResponse as prost::Message>::decode(message);
    message.map(|m| m.status).map_err(|e| format!("a gRPC health answer that cannot be read: {e}"))
}

fn framed(service: &str) -> Bytes {
    let message = prost::Message::encode_to_vec(&HealthCheckRequest { service: service.to_owned() });
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(&message);
    out.freeze()
}

fn judge(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some("12") => Err("the server has no gRPC health service (status 12)".to_owned()),
        Some(status) => {
            Err(format!("gRPC status {status}: {}", text("grpc-message").unwrap_or("no message")))
        }
    }
}

fn name_of(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
