//! One connection to a ztunnel: its hello, then messages one by one, each with its answer.

use std::os::fd::AsFd as _;
use std::time::Duration;

use super::roster::{LineId, Message};
use super::{Report, SeqpacketConn, SharedNetNs, mpsc, timeout, wire};

/// Where the server puts the next message; one at a time.
pub(super) type Inbox = mpsc::Sender<Message<SharedNetNs>>;

/// Carries messages until either side ends; the last report is always [`Report::Lost`].
pub(super) async fn serve(
    conn: SeqpacketConn,
    id: LineId,
    mut messages: mpsc::Receiver<Message<SharedNetNs>>,
    reports: mpsc::Sender<(LineId, Report)>,
    deadline: Duration,
) {
    let why = match talk(&conn, id, &mut messages, &reports, deadline).await {
        Ok(()) => "this program is leaving".to_owned(),
        Err(why) => why,
    };
    // Without a receiver the server itself is gone, and with it whoever wanted to know.
    let _ = reports.send((id, Report::Lost(why))).await;
}

async fn talk(
    conn: &SeqpacketConn,
    id: LineId,
    messages: &mut mpsc::Receiver<Message<SharedNetNs>>,
    reports: &mpsc::Sender<(LineId, Report)>,
    deadline: Duration,
) -> Result<(), String> {
    let hello = receive(conn, "hello", deadline).await?;
    wire::read_hello(&hello)?;
    let told =
        |report| async { reports.send((id, report)).await.map_err(|_| "this program is leaving".to_owned()) };
    told(Report::Hello).await?;
    let mut idle = [0; wire::PACKET_MAX];
    loop {
        let message = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => message,
                None => return Ok(()),
            },
            unasked = conn.recv(&mut idle) => return Err(match unasked {
                Ok(received) if received.is_end() => "it closed the connection".to_owned(),
                Ok(_) => "it sent something unasked, so answers could no longer be told apart".to_owned(),
                Err(e) => format!("reading failed: {e}"),
            }),
        };
        let fd = match &message {
            Message::Add(_, entry) => entry.netns.as_ref().map(|netns| netns.0.as_fd()),
            Message::Keep(_) | Message::Del(_) | Message::SnapshotSent => None,
        };
        let packet = wire::write_request(&message);
        timeout(deadline, conn.send(&packet, fd))
            .await
            .map_err(|_| format!("it took no message within {deadline:?}"))?
            .map_err(|e| format!("sending failed: {e}"))?;
        let answer = receive(conn, "answer", deadline).await?;
        told(Report::Answer(wire::read_answer(&answer)?)).await?;
    }
}

async fn receive(conn: &SeqpacketConn, what: &str, deadline: Duration) -> Result<Vec<u8>, String> {
    let mut buffer = [0; wire::PACKET_MAX];
    let received = timeout(deadline, conn.recv(&mut buffer))
        .await
        .map_err(|_| format!("no {what} within {deadline:?}"))?
        .map_err(|e| format!("reading its {what} failed: {e}"))?;
    if received.is_end() {
        return Err(format!("it closed the connection instead of its {what}"));
    }
    if received.truncated || !received.fds.is_empty() {
        return Err(format!("its {what} is too long or carries descriptors"));
    }
    Ok(buffer.get(..received.len).unwrap_or_default().to_vec())
}
