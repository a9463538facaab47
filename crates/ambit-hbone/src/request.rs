//! Building and reading the CONNECT request.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

use crate::{Authority, ConnId};

/// Most bytes of decoded header fields a request may have (T-05).
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most header fields a request may have (T-05).
pub const HEADER_FIELDS_MAX: usize = 32;

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a client's proxy asks.
#[derive(Debug, Clone)]
pub struct Connect<'a> {
    /// Where to.
    pub authority: &'a str,
    /// The source workload's `baggage`.
    pub baggage: &'a str,
    /// `forwarded` header.
    pub forwarded: &'a str,
    /// Connection id.
    pub conn_id: ConnId,
    /// Random span id.
    pub span: u64,
}

/// The request could not be put together: a name in it is no header text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("building the tunnel request to {authority:?}: {what}")]
pub struct RequestError {
    /// Where to.
    pub authority: String,
    /// What is wrong.
    pub what: String,
}

impl Connect<'_> {
    /// The HTTP/2 request: `:method CONNECT`, `:authority` only.
    ///
    /// # Errors
    /// [`RequestError`] if a part cannot stand in a header.
    pub fn request(&self) -> Result<Request<()>, RequestError> {
        let fail = |what: String| RequestError { authority: self.authority.to_owned(), what };
        let uri = Uri::builder().authority(self.authority).build().map_err(|e| fail(e.to_string()))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, text) in [(&BAGGAGE, self.baggage), (&FORWARDED, self.forwarded)] {
            if !text.is_empty() {
                headers.insert(name, HeaderValue::from_str(text).map_err(|e| fail(e.to_string()))?);
            }
        }
        let traceparent = self.conn_id.traceparent(self.span);
        headers.insert(&TRACEPARENT, HeaderValue::from_str(&traceparent).map_err(|e| fail(e.to_string()))?);
        Ok(request)
    }
}

/// What a server's proxy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where to.
    pub authority: Authority,
    /// The peer's `baggage`, unread.
    pub baggage: Option<String>,
    /// Service host name of `forwarded`.
    pub service: Option<String>,
    /// Connection id, if the peer sent one.
    pub conn_id: Option<ConnId>,
}

/// Why a request is refused before anything is decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Not a CONNECT.
    #[error("method {method} is not CONNECT")]
    Method {
        /// What it was.
        method: String,
    },
    /// Extended CONNECT (RFC 8441), which is no tunnel.
    #[error("extended CONNECT for a protocol is not a tunnel")]
    Protocol,
    /// The authority names no destination.
    #[error(transparent)]
    Authority(#[from] crate::authority::AuthorityError),
    /// Too many or too long header fields.
    #[error("{fields} header fields with {bytes} bytes are more than 32 or 8192")]
    Headers {
        /// Number of fields.
        fields: usize,
        /// Their bytes.
        bytes: usize,
    },
}

impl Refused {
    /// The status that answers it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Headers { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method { .. } | Self::Protocol | Self::Authority(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request; `extended` says whether it carried `:protocol`.
///
/// # Errors
/// [`Refused`] with the status to answer.
pub fn read<B>(request: &Request<B>, extended: bool) -> Result<Asked, Refused> {
    let headers = request.headers();
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADER_FIELDS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Refused::Headers { fields: headers.len(), bytes });
    }
    if *request.method() != Method::CONNECT {
        return Err(Refused::Method { method: request.method().to_string() });
    }
    if extended {
        return Err(Refused::Protocol);
    }
    let authority = request.uri().authority().map_or("", |a| a.as_str());
    Ok(Asked {
        authority: Authority::parse(authority)?,
        baggage: text(headers, &BAGGAGE).map(ToOwned::to_owned),
        service: text(headers, &FORWARDED).and_then(crate::forwarded::host).map(ToOwned::to_owned),
        conn_id: text(headers, &TRACEPARENT).and_then(ConnId::from_traceparent),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::{Connect, read};
    use crate::ConnId;

    #[test]
    fn what_is_asked_is_read_back() {
        let id = ConnId::from_random(7);
        let connect = Connect {
            authority: "10.0.0.1:80",
            baggage: "service.name=x",
            forwarded: "for=\"1.2.3.4:5\";host=a.b",
            conn_id: id,
            span: 1,
        };
        let asked = read(&connect.request().unwrap(), false).unwrap();
        assert_eq!(asked.authority.to_string(), "10.0.0.1:80");
        assert_eq!(asked.service.as_deref(), Some("a.b"));
        assert_eq!(asked.conn_id, Some(id));
    }

    #[test]
    fn requests_that_are_no_tunnel_are_refused() {
        let mut many = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
        for i in 0..40 {
            many = many.header(format!("x-{i}"), "v");
        }
        let rows = [
            (Request::builder().method(Method::GET).uri("http://a/").body(()).unwrap(), false, 400),
            (Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap(), true, 400),
            (Request::builder().method(Method::CONNECT).uri("nonsense").body(()).unwrap(), false, 400),
            (many.body(()).unwrap(), false, 431),
        ];
        for (request, extended, status) in rows {
            let refused = read(&request, extended).unwrap_err();
            assert_eq!(refused.status().as_u16(), status, "{refused}");
        }
    }
}
