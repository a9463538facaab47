//! What a rule's filters do to one request and its response, and which answers they give themselves.
//!
//! Compiled once: names and values have been checked, and a prefix to be replaced is known. Applying is left to
//! whoever holds the head of the request; it says through [`Head`] how to change it.

mod cors;
mod fault;
mod headers;
mod mirror;
mod redirect;
mod rewrite;

#[cfg(test)]
mod tests;

pub use cors::{CorsError, CorsPolicy, OriginError, Preflight};
pub use fault::{Injection, inject};
pub use mirror::is_mirrored;
pub use redirect::RedirectTo;
pub use rewrite::{NewPath, RewriteTo};

pub use headers::HeaderError;
pub(crate) use headers::{Of, check_change, is_token};

use crate::model::{HeaderChange, Mirror, Respond};

/// The filters of a rule or a backend. Most have none, so that what they hold lies outside.
#[derive(Debug, Default)]
pub struct Filters {
    /// Answers and marks for browsers; comes before everything else.
    pub cors: Option<Box<CorsPolicy>>,
    /// Changes to the request, and copies of it as it is at that step, in the order listed.
    pub steps: Box<[Step]>,
    /// Changes to responses of backends.
    pub response_headers: Option<Box<HeaderChange>>,
    /// An answer in place of a backend's.
    pub end: Option<Box<End>>,
}

/// One step on the way of a request.
#[derive(Debug)]
pub enum Step {
    /// Changes headers.
    Headers(HeaderChange),
    /// Changes host or path.
    Rewrite(RewriteTo),
    /// Sends a copy of the request as it is now.
    Mirror(Mirror),
}

/// An answer that a rule gives itself.
#[derive(Debug)]
pub enum End {
    /// Another address.
    Redirect(RedirectTo),
    /// A fixed response.
    Respond(Respond),
}

/// The head of a request or response that filters change. Names are in lower case.
pub trait Head {
    /// Puts one line in place of all lines of that name.
    fn set(&mut self, name: &str, value: &str);
    /// Adds a line.
    fn add(&mut self, name: &str, value: &str);
    /// Takes all lines of that name away.
    fn remove(&mut self, name: &str);
}

/// The head of a request.
pub trait RequestHead: Head {
    /// The path without its query.
    fn path(&self) -> &str;
    /// Changes the path; the query stays.
    fn set_path(&mut self, path: &str);
    /// Changes host or `:authority`.
    fn set_host(&mut self, host: &str);
}

impl HeaderChange {
    /// Carries it out.
    pub fn apply(&self, head: &mut impl Head) {
        for (name, value) in &self.set {
            head.set(name, value);
        }
        for (name, value) in &self.add {
            head.add(name, value);
        }
        for name in &self.remove {
            head.remove(name);
        }
    }
}

impl Filters {
    /// Takes a request through the steps. `mirrored` is shown each mirror and the head as it is then.
    pub fn apply<R: RequestHead>(&self, head: &mut R, mut mirrored: impl FnMut(&Mirror, &R)) {
        for step in &self.steps {
            match step {
                Step::Headers(change) => change.apply(head),
                Step::Rewrite(rewrite) => rewrite.apply(head),
                Step::Mirror(mirror) => mirrored(mirror, head),
            }
        }
    }
}
