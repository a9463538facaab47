//! Opens the ports of the program, also where the kernel has no IPv6.

use std::io;
use std::net::SocketAddr;

use ambit_net::socket::without_ipv6;
use tokio::net::TcpListener;
use tracing::info;

/// Listens on an address; of the one that stands for all, IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// What the system says of `address`.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let refused = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(refused) => refused,
    };
    match without_ipv6(address, &refused) {
        Some(instead) => {
            info!(%address, %instead, "this kernel has no IPv6; listening on IPv4 alone");
            TcpListener::bind(instead).await
        }
        None => Err(refused),
    }
}
