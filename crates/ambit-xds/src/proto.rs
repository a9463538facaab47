//! The messages of `proto/`, as generated: field names and numbers of the wire, no meaning.
#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated; the words are in the .proto files"
)]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
