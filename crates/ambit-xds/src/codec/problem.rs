//! Why a resource cannot be used, and what of it was read as less than it says.

use std::fmt;

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
        Self { field: format!("{outer}.{}", self.field), problem: self.problem }
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
