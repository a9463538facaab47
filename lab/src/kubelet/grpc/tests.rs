//! The gRPC health probe against real bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use super::check;

/// What the server answers: message bytes behind their prefix, if any, and its status in the trailers.
type Answer = (Option<&'static [u8]>, &'static str);

#[tokio::test]
async fn only_serving_is_good() {
    let rows: [(Answer, Result<(), &str>); 7] = [
        ((Some(&[0x08, 1]), "0"), Ok(())),
        ((Some(&[0x08, 2]), "0"), Err("gRPC health status NOT_SERVING")),
        ((Some(&[]), "0"), Err("gRPC health status UNKNOWN")),
        ((Some(&[0x08, 3]), "0"), Err("gRPC health status SERVICE_UNKNOWN")),
        ((None, "12"), Err("the server has no gRPC health service (status 12)")),
        ((None, "5"), Err("gRPC status 5: no message")),
        ((None, "0"), Err("a gRPC health answer without a message")),
    ];
    for (answer, want) in rows {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (told, asked) = tokio::join!(check(near, "10.244.1.2:9000", "shop"), serve(far, answer));
        assert_eq!(told, want.map_err(str::to_owned), "{answer:?}");
        assert_eq!(asked, ("/grpc.health.v1.Health/Check".to_owned(), b"\0\0\0\0\x06\x0a\x04shop".to_vec()));
    }
}

/// Serves one call; returns its path and the bytes that were sent.
async fn serve(stream: tokio::io::DuplexStream, (message, status): Answer) -> (String, Vec<u8>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let work = async {
        let mut asked = Vec::new();
        while let Some(data) = body.data().await {
            asked.extend_from_slice(&data.unwrap());
        }
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        if let Some(message) = message {
            let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
            stream.send_data(Bytes::from(framed), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        stream.send_trailers(trailers).unwrap();
        asked
    };
    let asked = super::beside(std::future::poll_fn(|cx| connection.poll_closed(cx)), work).await;
    // The answer is written while the connection winds down; a client that has hung up is no fault of ours.
    connection.graceful_shutdown();
    let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
    (path, asked)
}
