//! ZDS messages as bytes: one protobuf message a packet, no length before it.

use ambit_xds::proto::istio::workload::zds;
use prost::Message as _;
use zds::workload_request::Payload as Request;
use zds::workload_response::Payload as Response;

use super::roster::Message;

/// Longest packet that either side reads.
pub(super) const PACKET_MAX: usize = 1024;

/// Checks a ztunnel's hello.
///
/// A version that we do not know is taken as it is: the messages we send are those of version 1 in any case.
pub(super) fn read_hello(packet: &[u8]) -> Result<(), String> {
    let hello = zds::ZdsHello::decode(packet).map_err(|e| format!("its hello cannot be read: {e}"))?;
    if hello.version == zds::Version::NotUsed as i32 {
        return Err("its hello names no version".to_owned());
    }
    Ok(())
}

/// Reads an answer: accepted, or why not.
pub(super) fn read_answer(packet: &[u8]) -> Result<Result<(), String>, String> {
    let answer =
        zds::WorkloadResponse::decode(packet).map_err(|e| format!("its answer cannot be read: {e}"))?;
    match answer.payload {
        Some(Response::Ack(ack)) if ack.error.is_empty() => Ok(Ok(())),
        Some(Response::Ack(ack)) => Ok(Err(ack.error)),
        None => Err("its answer is of a kind we do not know".to_owned()),
    }
}

/// The packet of one message; its descriptor travels beside it.
pub(super) fn write_request<N>(message: &Message<N>) -> Vec<u8> {
    let payload = match message {
        Message::Add(uid, entry) => Request::Add(zds::AddWorkload {
            uid: uid.clone(),
            workload_info: Some(zds::WorkloadInfo {
                name: entry.name.clone(),
                namespace: entry.namespace.clone(),
                service_account: entry.service_account.clone(),
            }),
        }),
        Message::Keep(uid) => Request::Keep(zds::KeepWorkload { uid: uid.clone() }),
        Message::Del(uid) => Request::Del(zds::DelWorkload { uid: uid.clone() }),
        Message::SnapshotSent => Request::SnapshotSent(zds::SnapshotSent {}),
    };
    zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}
