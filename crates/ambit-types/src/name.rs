//! Names that must not be swapped for one another.

use std::fmt;
use std::sync::Arc;

/// A shared immutable string; cloning costs a reference count.
pub type Str = Arc<str>;

/// Defines a newtype over [`Str`] with the conversions tests and codecs need.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(Str);

        impl $name {
            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text in the memory it has here.
            pub fn shared(&self) -> Str {
                self.0.clone()
            }

            /// Whether nothing was given.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Str::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Str::from(text))
            }
        }

        impl From<Str> for $name {
            fn from(text: Str) -> Self {
                Self(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

word! {
    /// Primary key of a workload, for a pod `CLUSTER//Pod/NAMESPACE/NAME`. Opaque but for [`Uid::is_pod`].
    Uid
}
word! {
    /// Network a workload lives in; empty is the default network.
    Network
}

impl Uid {
    /// Whether the record describes a pod: pods win over other records that share an address.
    pub fn is_pod(&self) -> bool {
        self.0.contains("//Pod/")
    }
}

/// Key of a service: `NAMESPACE/HOSTNAME`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the service.
    pub namespace: Str,
    /// Its full host name, such as `cart.shop.svc.cluster.local`.
    pub hostname: Str,
}

/// Key of a policy: `NAMESPACE/NAME`; the root namespace for mesh-wide ones.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Namespace of the policy.
    pub namespace: Str,
    /// Name of the policy.
    pub name: Str,
}

/// A key that is not `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not NAMESPACE/NAME")]
pub struct KeyError {
    /// What was given.
    pub text: String,
}

macro_rules! slash_key {
    ($key:ident, $second:ident) => {
        impl $key {
            /// Makes a key of its two parts.
            pub fn new(namespace: impl Into<Str>, $second: impl Into<Str>) -> Self {
                Self { namespace: namespace.into(), $second: $second.into() }
            }

            /// Reads `NAMESPACE/NAME`; the second part may not hold a slash.
            ///
            /// # Errors
            /// [`KeyError`] if there is not exactly one slash or a part is empty.
            pub fn parse(text: &str) -> Result<Self, KeyError> {
                match text.split_once('/') {
                    Some((namespace, second))
                        if !namespace.is_empty() && !second.is_empty() && !second.contains('/') =>
                    {
                        Ok(Self::new(namespace, second))
                    }
                    Some(_) | None => Err(KeyError { text: text.to_owned() }),
                }
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.$second)
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        }
    };
}

slash_key!(ServiceKey, hostname);
slash_key!(PolicyKey, name);
