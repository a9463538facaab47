//! `google.protobuf.Any` with shared bytes, so that a resource is encoded once for all connections.

use bytes::Bytes;
use prost::Message;

/// Prefix of every type URL.
const TYPE_PREFIX: &str = "type.googleapis.com/";

/// A message of a type that is named beside it.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Wraps a message whose full name is `name`, such as `istio.workload.Address`.
    pub fn pack(name: &str, message: &impl Message) -> Self {
        Self { type_url: format!("{TYPE_PREFIX}{name}"), value: Bytes::from(message.encode_to_vec()) }
    }

    /// Whether it says to hold the message with the full name `name`.
    pub fn is(&self, name: &str) -> bool {
        // Only the part after the last slash counts, as in every protobuf library.
        self.type_url.rsplit('/').next() == Some(name)
    }
}
