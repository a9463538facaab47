//! Why a resource cannot be used, and what of it was read as less than it says.

use std::fmt;
use std::time::Duration;

use ambit_policy::http::provider;
use ambit_policy::jwt;
use ambit_types::IdentityError;
use ambit_types::name::KeyError;

/// A resource that cannot be used; the text goes into the NACK, so it names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// Path of the field, such as `rules[0].clauses[1].matches[0].source_ips[2]`.
    pub field: String,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

impl Malformed {
    pub(crate) fn at(field: impl Into<String>, problem: Problem) -> Self {
        Self { field: field.into(), problem }
    }

    /// The same seen from the message that holds the field's message as `outer`.
    pub(crate) fn inside(self, outer: &str) -> Self {
        // An entry of a list of numbers or texts is itself the field.
        let dot = if self.field.is_empty() { "" } else { "." };
        Self { field: format!("{outer}{dot}{}", self.field), problem: self.problem }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Empty or absent where something must stand.
    #[error("is missing")]
    Missing,
    /// Neither an IPv4 nor an IPv6 address.
    #[error("has {bytes} bytes; an address has 4 or 16")]
    AddressLength {
        /// How many there are.
        bytes: usize,
    },
    /// A prefix longer than its address.
    #[error("prefix length {length} is longer than the address, {max} bits")]
    Prefix {
        /// What was given.
        length: u32,
        /// The most there can be.
        max: u8,
    },
    /// No TCP port.
    #[error("{found} is no port, at most 65535")]
    Port {
        /// What was given.
        found: u32,
    },
    /// Not two names around a slash.
    #[error("{0}")]
    Key(KeyError),
    /// Not a trust domain.
    #[error("{0}")]
    Identity(IdentityError),
    /// A value whose meaning decides who may connect, and that this version does not know.
    #[error("unknown value {found}")]
    UnknownValue {
        /// The number on the wire.
        found: i32,
    },
    /// A rule of an extension that the policy does not have.
    #[error("rule {rule} does not exist, the policy has {rules}")]
    Rule {
        /// Index given.
        rule: u32,
        /// How many rules there are.
        rules: usize,
    },
    /// A packed message of another type.
    #[error("holds {found:?}, another message than its place demands")]
    Type {
        /// The type URL found.
        found: String,
    },
    /// More elements than the bound of the model.
    #[error("has {found} elements, more than {max}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A longer text than the bound of the model.
    #[error("has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A number outside its range.
    #[error("{found} is not between {min} and {max}")]
    Range {
        /// What was given.
        found: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A time outside its range.
    #[error("{found:?} is not between {min:?} and {max:?}")]
    Duration {
        /// What was given.
        found: Duration,
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// A text of another form than its place demands.
    #[error("{text:?} is no {what}")]
    Form {
        /// What was given.
        text: String,
        /// What it should be.
        what: &'static str,
    },
    /// A rule for tokens that its own compiler refuses.
    #[error("{0}")]
    Token(jwt::Problem),
    /// A provider that its own compiler refuses.
    #[error("{0}")]
    Provider(provider::Problem),
    /// Something that a reader has to know and this version does not.
    #[error("needs what this version does not know: {names}")]
    Needs {
        /// The unknown names, joined by commas.
        names: String,
    },
    /// Bytes that are no protobuf message of that type.
    #[error("cannot be decoded: {0}")]
    Encoding(String),
    /// A resource called otherwise than its content demands.
    #[error("the resource is called {resource:?}, its content says {content:?}")]
    Name {
        /// Name around the content.
        resource: String,
        /// Name by the content.
        content: String,
    },
}

/// What was read as less than it says: values of a newer control plane, each as `FIELD: text`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes(Vec<String>);

impl Notes {
    /// The notes, in the order of the fields read.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether everything was understood.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that the enum value `found` is read as `instead`, and returns that.
    pub(crate) fn unknown<T: fmt::Debug>(&mut self, field: &str, found: i32, instead: T) -> T {
        self.0.push(format!("{field}: unknown value {found} read as {instead:?}"));
        instead
    }

    pub(crate) fn add(&mut self, field: &str, text: impl fmt::Display) {
        self.0.push(format!("{field}: {text}"));
    }
}
