//! What can be wrong with a rule, where it stands, and what follows.

use std::time::Duration;

use crate::filter::{CorsError, HeaderError};
use crate::matcher::PatternError;
use crate::model::RouteKey;
use crate::model::limits::{PATH_BYTES_MAX, PATH_PATTERNS_MAX, RESPOND_BYTES_MAX, RETRIES_MAX, WEIGHT_MAX};

/// Something wrong in a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{route} {field}: {fault}")]
pub struct RuleError {
    /// The route.
    pub route: RouteKey,
    /// Its rule, counted from 0.
    pub rule: usize,
    /// The field as in the object, such as `rules[0].matches[1].path.value`.
    pub field: String,
    /// What is wrong.
    pub fault: RuleFault,
    /// What follows.
    pub effect: Effect,
}

/// What follows from something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// The rule answers 500.
    RuleRefuses,
    /// The share of one backend answers 500.
    BackendRefuses,
    /// A mirror gets nothing; requests are not affected.
    MirrorIsDropped,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleFault {
    /// A path that no request can have, or that can be read in two ways.
    #[error("path {path:?} {why}")]
    Path {
        /// As written.
        path: String,
        /// What about it.
        why: PathFault,
    },
    /// A regular expression.
    #[error("pattern {pattern:?}: {cause}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What about it.
        cause: PatternError,
    },
    /// Too many path patterns in the routes of one port.
    #[error(
        "there are more than {PATH_PATTERNS_MAX} path patterns on this port; use exact paths or prefixes"
    )]
    TooManyPatterns,
    /// A list that is too long.
    #[error("{found} entries, more than {max}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// Something that should be a name.
    #[error("{text:?} is no {what}")]
    Name {
        /// As written.
        text: String,
        /// What it should be.
        what: &'static str,
    },
    /// A way of matching that makes no sense here.
    #[error("a gRPC service or method is matched exactly or by pattern")]
    MatchType,
    /// A header change.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A CORS filter.
    #[error(transparent)]
    Cors(#[from] CorsError),
    /// A filter that may stand only once.
    #[error("{filter} stands here more than once")]
    Repeated {
        /// Which.
        filter: &'static str,
    },
    /// Two filters that exclude each other.
    #[error("{first} and {second} exclude each other")]
    Conflict {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// An answer of the rule itself beside backends.
    #[error("{filter} answers by itself: take the backendRefs away")]
    WithBackends {
        /// Which.
        filter: &'static str,
    },
    /// A filter that has no meaning on a backend.
    #[error("{filter} is for rules, not for backends")]
    NotOnBackend {
        /// Which.
        filter: &'static str,
    },
    /// A filter that is not known, or whose reference leads nowhere.
    #[error("{what} is not a filter that can be carried out")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// A prefix to be replaced that is not clear.
    #[error("ReplacePrefixMatch needs exactly one match in the rule, of type PathPrefix")]
    PrefixUnclear,
    /// A number outside its range.
    #[error("{value} is not between {min} and {max}")]
    Range {
        /// As written.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A status that a redirect cannot have.
    #[error("{status} is not one of 301, 302, 303, 307 and 308")]
    RedirectStatus {
        /// As written.
        status: u16,
    },
    /// A share that is none.
    #[error(
        "{numerator} of {denominator} is no share: the denominator is at least 1 and not less than the numerator"
    )]
    Fraction {
        /// As written.
        numerator: u32,
        /// As written.
        denominator: u32,
    },
    /// A time limit of one attempt that is longer than that of all.
    #[error("backendRequest {backend_request:?} is longer than request {request:?}")]
    TimeoutOrder {
        /// All attempts.
        request: Duration,
        /// One.
        backend_request: Duration,
    },
    /// A duration that is too short to be meant.
    #[error("{given:?} is shorter than {min:?}")]
    TooShort {
        /// As written.
        given: Duration,
        /// Least.
        min: Duration,
    },
    /// A cookie that is to be kept without saying how long.
    #[error("a permanent cookie needs absoluteTimeout")]
    CookieWithoutEnd,
    /// A body that is too long to be kept for everybody.
    #[error("the body has {bytes} bytes, more than {RESPOND_BYTES_MAX}")]
    BodyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A mirror whose reference leads nowhere.
    #[error("{what}")]
    MirrorTarget {
        /// The reference, and what is wrong with it.
        what: String,
    },
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum PathFault {
    /// No slash at the begin.
    #[error("does not begin with a slash")]
    Relative,
    /// More than can be meant.
    #[error("has more than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// `//`, `/./` or `/../`: requests are normalised before they are matched.
    #[error("has an empty or dotted segment, which no request has after normalisation")]
    Segments,
    /// `%2f`: a slash that is none.
    #[error("has an encoded slash, which can be read in two ways")]
    EncodedSlash,
    /// Characters that a path cannot have.
    #[error("has characters that belong percent-encoded, or a query or fragment")]
    Characters,
}

/// Largest number of retries, as the range check needs it.
pub(super) const RETRIES: (u64, u64) = (0, RETRIES_MAX as u64);

/// Weights, as the range check needs them.
pub(super) const WEIGHTS: (u64, u64) = (0, WEIGHT_MAX as u64);

/// Which rule is being compiled.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleAt<'a> {
    pub(super) route: &'a RouteKey,
    pub(super) rule: usize,
}

/// Collects what is wrong with one rule.
pub(super) struct Findings<'a> {
    at: RuleAt<'a>,
    errors: &'a mut Vec<RuleError>,
    is_valid: bool,
    /// What errors are reported as.
    effect: Effect,
}

impl<'a> Findings<'a> {
    pub(super) fn new(at: RuleAt<'a>, errors: &'a mut Vec<RuleError>) -> Self {
        Self { at, errors, is_valid: true, effect: Effect::RuleRefuses }
    }

    /// Reports something wrong; `field` is inside the rule.
    pub(super) fn report(&mut self, field: &str, fault: impl Into<RuleFault>) {
        self.is_valid = false;
        self.note(field, fault, self.effect);
    }

    /// Reports something that leaves the rule in force.
    pub(super) fn note(&mut self, field: &str, fault: impl Into<RuleFault>, effect: Effect) {
        let RuleAt { route, rule } = self.at;
        let dot = if field.is_empty() { "" } else { "." };
        let field = format!("rules[{rule}]{dot}{field}");
        self.errors.push(RuleError { route: route.clone(), rule, field, fault: fault.into(), effect });
    }

    /// Whether nothing has been wrong so far.
    pub(super) fn is_valid(&self) -> bool {
        self.is_valid
    }

    /// Compiles a backend: what is wrong in it is its own affair. Returns the result and whether it is valid.
    pub(super) fn of_backend<T>(&mut self, compile: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = (self.is_valid, self.effect);
        (self.is_valid, self.effect) = (true, Effect::BackendRefuses);
        let result = compile(self);
        let is_valid = self.is_valid;
        (self.is_valid, self.effect) = before;
        (result, is_valid)
    }

    /// Reports a list that is too long.
    pub(super) fn length(&mut self, field: &str, found: usize, max: usize) {
        if found > max {
            self.report(field, RuleFault::TooMany { found, max });
        }
    }

    /// Reports a number outside its range.
    pub(super) fn range(&mut self, field: &str, value: u64, (min, max): (u64, u64)) {
        if value < min || value > max {
            self.report(field, RuleFault::Range { value, min, max });
        }
    }
}
