//! Reason codes: one stable code for every refused or odd connection.
//!
//! The same code stands in the access log, the metric, the flow record, a response body and the reference page.

use std::fmt;
use std::str::FromStr;

use crate::Fault;

mod list;
#[cfg(test)]
mod tests;

pub use list::Reason;

/// Whether a code explains a refusal or a connection that went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The connection was refused or cut.
    Refusal,
    /// The connection went through; the code says why that is worth knowing.
    Info,
}

/// Everything there is to say about one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub reason: Reason,
    /// Its number, the digits behind `AMB`.
    pub number: u16,
    /// Its name in kebab case.
    pub name: &'static str,
    /// Refusal or information.
    pub kind: Kind,
    /// The `response_flags` label that existing dashboards know.
    pub flag: &'static str,
    /// Who has to change something.
    pub fault: Fault,
    /// When it is given.
    pub when: &'static str,
    /// What to try.
    pub try_next: &'static str,
}

/// Declares the enum and its table from one list.
macro_rules! reasons {
    ($($variant:ident = $number:literal, $name:literal, $kind:ident, $flag:literal, $fault:ident, $when:literal, $next:literal;)+) => {
        /// A reason code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $when] $variant,)+
        }

        impl Reason {
            /// Every code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What is known of the code.
            pub const fn entry(self) -> $crate::reason::Entry {
                match self {
                    $(Self::$variant => $crate::reason::Entry {
                        reason: self,
                        number: $number,
                        name: $name,
                        kind: $kind,
                        flag: $flag,
                        fault: $fault,
                        when: $when,
                        try_next: $next,
                    },)+
                }
            }

            /// The code as printed: `AMB2104`.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("AMB", $number),)+
                }
            }
        }
    };
}
use reasons;

impl Reason {
    /// The name in kebab case, such as `policy-denied`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// The `response_flags` label shown beside it.
    pub const fn flag(self) -> &'static str {
        self.entry().flag
    }

    /// Whether a connection with this code was refused or cut.
    pub const fn is_refusal(self) -> bool {
        matches!(self.entry().kind, Kind::Refusal)
    }

    /// Who has to act.
    pub const fn fault(self) -> Fault {
        self.entry().fault
    }
}

impl fmt::Display for Reason {
    /// `AMB2104 policy-denied`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.name())
    }
}

/// A text that is no known reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no reason code; codes look like AMB2104 or policy-denied")]
pub struct UnknownReason {
    /// What was given.
    pub text: String,
}

impl FromStr for Reason {
    type Err = UnknownReason;

    /// Reads a code (`AMB2104`, any case) or a name (`policy-denied`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|r| r.code().eq_ignore_ascii_case(text) || r.name() == text)
            .ok_or_else(|| UnknownReason { text: text.to_owned() })
    }
}
