//! A client of the API server from outside the fabric: only its sockets are opened inside.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::{TcpSocket, TcpStream};
use tower::Service;

use crate::error::LabError;
use crate::link::Place;

/// How long a connection may take to be made; it crosses no wire.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client with the rights of a kubeconfig's client certificate.
pub(super) async fn client(kubeconfig: &Path, fabric: Arc<Place>) -> Result<Client, LabError> {
    let failed = |e: &dyn std::fmt::Display| {
        LabError::Failed(format!("using the kubeconfig {}: {e}", kubeconfig.display()))
    };
    // Another crate's choice of a TLS library must not leave rustls without one; a second choice is refused.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let read = Kubeconfig::read_from(kubeconfig).map_err(|e| failed(&e))?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(read, &options).await.map_err(|e| failed(&e))?;
    let https = config.rustls_https_connector_with_connector(Inside(fabric)).map_err(|e| failed(&e))?;
    let http = Http::builder(TokioExecutor::new()).build::<_, Body>(https);
    let namespace = config.default_namespace.clone();
    Ok(ClientBuilder::new(http, namespace).with_layer(&config.base_uri_layer()).build())
}

/// Connects from inside a namespace.
#[derive(Debug, Clone)]
struct Inside(Arc<Place>);

impl Service<Uri> for Inside {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let place = Arc::clone(&self.0);
        async move {
            let address = address_of(&uri)?;
            // The socket belongs to the namespace in which it is opened, wherever it is used.
            let open = || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let socket = place.netns.run(open).map_err(io::Error::other)??;
            let stream = tokio::time::timeout(PATIENCE, socket.connect(address)).await??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

fn address_of(uri: &Uri) -> io::Result<SocketAddr> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address: IpAddr = host.parse().map_err(|_| io::Error::other(format!("{uri} names no address")))?;
    Ok(SocketAddr::new(address, uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_a_server() {
        let rows = [
            ("https://172.30.0.254:6443/api", Some("172.30.0.254:6443")),
            ("https://[fd00:172:30::254]:6443", Some("[fd00:172:30::254]:6443")),
            ("https://172.30.0.254", Some("172.30.0.254:443")),
            ("https://kubernetes.default:6443", None),
        ];
        for (text, want) in rows {
            let uri: Uri = text.parse().expect("a URI");
            assert_eq!(address_of(&uri).ok(), want.map(|w| w.parse().expect("an address")), "row {text}");
        }
    }
}
