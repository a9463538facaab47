//! Who may ask over TCP, decided from a request's head alone.
//!
//! A browser sends requests for every page that it shows, so a page of somebody else must neither read nor ask: requests
//! that name another origin are refused, questions must carry a header that no foreign page can set, and without a token
//! the host must be a name of this machine, since any other may be made to point here. A token is compared in constant
//! time and read anew for each request, so that a mounted secret may change. It comes as a bearer token, or in a header of
//! its own: an API server that passes a request on to a pod takes `Authorization` out, which was meant for itself.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, Method, StatusCode, header};

#[cfg(test)]
mod tests;

/// The header that questions carry.
const ASKS: &str = "x-ambit-console";
/// The header that holds the token where `Authorization` does not arrive.
const TOKEN: &str = "x-ambit-console-token";
/// Shortest token that counts; an empty file lets nobody in.
const TOKEN_BYTES_MIN: usize = 16;

/// Why a request is not answered.
pub(super) type Refusal = (StatusCode, &'static str);

/// Whom the console answers.
#[derive(Debug, Clone)]
pub struct Guard {
    token_file: Option<PathBuf>,
    /// Whether the file could not be read the last time; shared by clones.
    is_unread: Arc<AtomicBool>,
}

impl Guard {
    /// Answers who shows the token of a file in requests for data; without one, everybody on this machine.
    #[must_use]
    pub fn new(token_file: Option<PathBuf>) -> Self {
        Self { token_file, is_unread: Arc::default() }
    }

    /// Whether a request may be answered. What the bundle consists of is no secret; data is.
    ///
    /// # Errors
    /// Status and words of the refusal.
    pub(super) fn check(&self, method: &Method, headers: &HeaderMap, is_data: bool) -> Result<(), Refusal> {
        let host = text(headers, header::HOST.as_str()).unwrap_or_default();
        if self.token_file.is_none() && !is_local(host) {
            return Err((
                StatusCode::MISDIRECTED_REQUEST,
                "ask by a name of this machine, such as localhost\n",
            ));
        }
        if is_foreign(headers, host) {
            return Err((StatusCode::FORBIDDEN, "another site may not ask here\n"));
        }
        match *method {
            Method::GET | Method::HEAD => {}
            Method::POST if headers.contains_key(ASKS) => {}
            Method::POST => {
                return Err((StatusCode::FORBIDDEN, "questions carry the header x-ambit-console\n"));
            }
            _ => return Err((StatusCode::METHOD_NOT_ALLOWED, "GET reads, POST asks\n")),
        }
        if is_data { self.authenticate(headers) } else { Ok(()) }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(path) = &self.token_file else { return Ok(()) };
        let refused = Err((StatusCode::UNAUTHORIZED, "a token is needed: ambit map --open\n"));
        let read = std::fs::read(path);
        // Anybody who reaches the port may ask, so only a change is worth a line.
        if self.has_turned(read.is_err()) {
            match &read {
                Ok(_) => tracing::info!(path = %path.display(), "the console's token can be read again"),
                Err(error) => tracing::warn!(
                    path = %path.display(), %error, "the console's token cannot be read; nobody is answered"
                ),
            }
        }
        let Ok(wanted) = read else { return refused };
        let wanted = wanted.trim_ascii();
        // Whoever names credentials means those; another header does not mend wrong ones.
        let given = match text(headers, header::AUTHORIZATION.as_str()) {
            Some(text) => text.strip_prefix("Bearer "),
            None => text(headers, TOKEN),
        };
        let is_it =
            given.is_some_and(|given| verify_slices_are_equal(given.trim().as_bytes(), wanted).is_ok());
        if is_it && wanted.len() >= TOKEN_BYTES_MIN { Ok(()) } else { refused }
    }

    /// Whether the file's state is another one than the last time.
    fn has_turned(&self, is_unread: bool) -> bool {
        self.is_unread.swap(is_unread, Ordering::Relaxed) != is_unread
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // A header that is not text is as good as another one.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Whether a `Host` means this machine by a name that nobody else can hold.
fn is_local(host: &str) -> bool {
    let bare = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        }),
    };
    let address = bare.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    bare.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether a browser says that a page of another origin asks.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
    let origin = text(headers, header::ORIGIN.as_str());
    let is_other = origin.is_some_and(|origin| {
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        own.is_none_or(|own| !own.eq_ignore_ascii_case(host))
    });
    let site = text(headers, "sec-fetch-site");
    is_other || site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}
