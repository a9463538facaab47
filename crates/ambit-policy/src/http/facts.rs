//! What a decision at a waypoint may know: the connection, and of a request its target, headers and token.
//!
//! Every fact comes from where it was proven: identity from TLS, the target from [`crate::normalize`], the token
//! from [`crate::jwt`]. Nothing a client merely says about itself is one, but for headers a policy asks about.

use std::net::IpAddr;

use ambit_types::Identity;

use crate::jwt::Verified;
use crate::normalize::Target;

/// Headers of a request, as lines: a header sent twice is two lines, never one joined by a comma.
pub trait Headers {
    /// Calls `line` with the value of every line of the header, in order. `name` is in lower case.
    fn each(&self, name: &str, line: &mut dyn FnMut(&[u8]));
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn each(&self, name: &str, line: &mut dyn FnMut(&[u8])) {
        let named = self.iter().filter(|(n, _)| n.as_ref().eq_ignore_ascii_case(name));
        named.for_each(|(_, value)| line(value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn each(&self, name: &str, line: &mut dyn FnMut(&[u8])) {
        self.as_slice().each(name, line);
    }
}

/// What a decision may know of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its target, normalised.
    pub target: &'a Target<'a>,
    /// Its headers.
    pub headers: &'a dyn Headers,
    /// Address of the client, from [`super::remote_address()`]; none if it could not be read, which no address is.
    pub remote: Option<IpAddr>,
    /// The verified token; none without one.
    pub token: Option<&'a Verified>,
}

/// What a decision may know.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    connection: crate::Facts<'a>,
    server_name: Option<&'a str>,
    request: Option<Request<'a>>,
}

impl<'a> Facts<'a> {
    /// Facts of a connection that is passed through at L4; `server_name` is the SNI of its inner TLS, if any.
    ///
    /// Address and port of `connection` are those the client asked for: a VIP and the service's port.
    pub fn of_connection(connection: crate::Facts<'a>, server_name: Option<&'a str>) -> Self {
        Self { connection, server_name, request: None }
    }

    /// Facts of a request on a connection.
    pub fn of_request(connection: crate::Facts<'a>, request: Request<'a>) -> Self {
        Self { connection, server_name: None, request: Some(request) }
    }

    /// Proven identity of the peer; none for plaintext.
    pub fn peer(&self) -> Option<&'a Identity> {
        self.connection.peer()
    }

    /// The connection.
    pub fn connection(&self) -> &crate::Facts<'a> {
        &self.connection
    }

    /// Server name of the inner TLS handshake.
    pub fn server_name(&self) -> Option<&'a str> {
        self.server_name
    }

    /// The request; none on a connection passed through.
    pub fn request(&self) -> Option<&Request<'a>> {
        self.request.as_ref()
    }

    /// Address of the client: of the request, or the direct peer's where there is no request.
    pub fn remote(&self) -> Option<IpAddr> {
        self.request.map_or_else(|| Some(self.connection.source()), |request| request.remote)
    }
}
