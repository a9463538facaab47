//! How programs tell each other of the certificates that they hold: never a key, and no certificate itself.

use serde::{Deserialize, Serialize};

/// What a program holds for one identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Leaf {
    /// Whose, as a SPIFFE URI.
    pub identity: String,
    /// Serial number in lower-case hex; none without a certificate.
    pub serial: Option<String>,
    /// First second of validity since 1970; none without a certificate.
    pub not_before: Option<u64>,
    /// Last second of validity since 1970; none without a certificate.
    pub not_after: Option<u64>,
    /// Why the last attempt to get one failed; none if it did not.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::Leaf;

    #[test]
    fn one_side_may_be_older_than_the_other() {
        let told = r#"{"identity": "spiffe://m/ns/shop/sa/web", "not_after": 7, "colour": "red"}"#;
        let leaf: Leaf = serde_json::from_str(told).unwrap();
        assert_eq!((leaf.not_after, leaf.serial.as_deref()), (Some(7), None));
        assert_eq!(serde_json::from_str::<Leaf>(&serde_json::to_string(&leaf).unwrap()).unwrap(), leaf);
        assert!(serde_json::from_str::<Leaf>(r#"{"not_after": -1}"#).is_err());
    }
}
