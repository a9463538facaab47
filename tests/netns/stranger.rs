//! Somebody outside the mesh who speaks HBONE to a pod's 15008, with whatever certificate there is to show.
//!
//! Only acts and tells; what must come of it stands in the tests.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::certs::{Shown, TestCa};
use ambit_tests::fakes;
use ambit_tests::lab::Lab;
use bytes::Bytes;
use tokio::net::TcpStream;

/// Longest time for one attempt.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of one attempt.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The stranger's address, as the pod's proxy sees it.
    pub(crate) from: SocketAddr,
    /// The tunnel's answer: status and reason code; or why there was none.
    pub(crate) status: Result<(u16, Option<String>), String>,
    /// What the application said.
    pub(crate) said: Vec<u8>,
    /// From the first packet to the end.
    pub(crate) took: Duration,
}

/// The authority that signs this lab's certificates.
pub(crate) fn authority(lab: &Lab) -> TestCa {
    TestCa::of_folder(&lab.run_dir().join("istiod/ca"))
}

/// From a pod, shows a certificate at a pod's 15008, asks for `authority` and says `words` without waiting for leave.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
#[track_caller]
pub(crate) fn ask(
    lab: &Lab,
    pod: &str,
    at: SocketAddr,
    shown: &Shown,
    authority: &str,
    words: &[u8],
) -> Answer {
    let begun = clock::monotonic();
    let tcp = lab.connect_from(pod, at);
    let from = tcp.local_addr().expect("a connected socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (status, said) = runtime.block_on(async {
        let tcp = TcpStream::from_std(tcp).expect("a socket that does not block");
        let talk = talk(tcp, shown, authority, Bytes::copy_from_slice(words));
        tokio::time::timeout(PATIENCE, talk).await.expect("the stranger is left without an answer")
    });
    Answer { from, status, said, took: clock::monotonic() - begun }
}

type Talked = (Result<(u16, Option<String>), String>, Vec<u8>);

async fn talk(tcp: TcpStream, shown: &Shown, authority: &str, words: Bytes) -> Talked {
    let no = |e: &dyn std::fmt::Display| (Err(e.to_string()), Vec::new());
    // In TLS 1.3 a client has finished, and may speak, before the server has looked at its certificate.
    let stream = match fakes::connect_to_anybody(tcp, shown, &[b"h2"]).await {
        Ok(stream) => stream,
        Err(error) => return no(&error),
    };
    let (mut send, connection) = match h2::client::handshake(stream).await {
        Ok(both) => both,
        Err(error) => return no(&error),
    };
    let driver = fakes::start(connection);
    let request = http::Request::connect(authority).body(()).expect("a CONNECT request");
    let (response, mut body) = match send.send_request(request, false) {
        Ok(both) => both,
        Err(error) => return no(&error),
    };
    if let Err(error) = body.send_data(words, true) {
        return no(&error);
    }
    let answer = match response.await {
        Ok(response) => response,
        Err(error) => return no(&error),
    };
    let code = answer.headers().get("x-ambit-reason").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let status = Ok((answer.status().as_u16(), code));
    let (mut receive, mut said) = (answer.into_body(), Vec::new());
    while let Some(Ok(chunk)) = receive.data().await {
        said.extend_from_slice(&chunk);
    }
    driver.abort();
    (status, said)
}
