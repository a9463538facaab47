//! The id of a connection, the same in the records of both ends.
//!
//! It travels as the trace id of `traceparent` (W3C Trace Context section 3.2), which every HBONE peer sends.

use std::fmt;

/// A 128-bit connection id; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u128);

impl ConnId {
    /// An id of 128 random bits.
    pub fn from_random(random: u128) -> Self {
        Self(random.max(1))
    }

    /// Reads the trace id of a `traceparent` header; `None` for anything malformed (G5).
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // Version ff is forbidden; later versions may add parts behind the flags.
        let sound = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        if !sound || (version == "00" && parts.next().is_some()) {
            return None;
        }
        u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0).map(Self)
    }

    /// A `traceparent` header with this id as trace id and flags 00.
    pub fn traceparent(self, span: u64) -> String {
        format!("00-{self}-{:016x}-00", span.max(1))
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::ConnId;

    #[test]
    fn traceparents_are_read_without_panic() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let rows = [
            (good, true),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", false),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", true),
            ("0000af7651916cd43dd8448eb211c80319cb7ad6b716920333101aa", false),
            ("", false),
            ("---", false),
            ("00-é-é-é", false),
        ];
        for (text, want) in rows {
            assert_eq!(ConnId::from_traceparent(text).is_some(), want, "row {text:?}");
        }
        let id = ConnId::from_traceparent(good).unwrap();
        assert_eq!(ConnId::from_traceparent(&id.traceparent(0)), Some(id));
    }
}
