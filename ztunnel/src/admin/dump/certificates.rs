//! Certificates by identity: each chain, and the roots that are trusted with it. Never a key.

use std::time::{Duration, UNIX_EPOCH};

use ambit_net::tls::spiffe;
use ambit_net::tls::store::Known;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Characters on a line of PEM (RFC 7468 section 2).
const PEM_LINE_CHARS: usize = 64;

/// Every identity at `now`, in seconds since 1970, with its certificates as `show` makes them of DER.
pub(super) fn list(known: Vec<Known>, now: u64, show: fn(&[u8]) -> Value) -> Value {
    known.into_iter().map(|known| one(&known, now, show)).collect()
}

fn one(known: &Known, now: u64, show: fn(&[u8]) -> Value) -> Value {
    let valid = known.credential.as_ref().is_some_and(|c| c.not_after() > now);
    let state = match (&known.credential, &known.error) {
        (Some(_), _) if valid => "Available".to_owned(),
        (_, Some(error)) => format!("Unavailable: {error}"),
        (_, None) => "Initializing".to_owned(),
    };
    let (mut chain, mut roots) = (Vec::new(), Vec::new());
    if let Some(credential) = &known.credential {
        chain.extend(credential.chain().iter().map(|der| show(der)));
        roots.extend(credential.roots().iter().map(|der| show(der)));
    }
    json!({
        "identity": known.identity.to_string(),
        "state": state,
        "valid": valid,
        "lastError": known.error,
        "certChain": chain,
        "rootCerts": roots,
    })
}

/// A certificate for our own tools: its serial number in hex.
pub(super) fn brief(der: &[u8]) -> Value {
    let (from, to) = spiffe::validity(der).unwrap_or_default();
    json!({"serialNumber": serial(der), "validFrom": time(from), "expirationTime": time(to)})
}

/// A certificate for Istio's tools: its serial number in decimal, and the whole of it, as base64 of its PEM.
pub(super) fn whole(der: &[u8]) -> Value {
    let mut value = brief(der);
    value["serialNumber"] = Value::from(decimal(&serial(der)));
    value["pem"] = Value::from(STANDARD.encode(pem(der)));
    value
}

fn serial(der: &[u8]) -> String {
    spiffe::serial(der).unwrap_or_default()
}

fn time(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// A number of any length in decimal, from its hex digits.
pub(super) fn decimal(hex: &str) -> String {
    // The last digit first.
    let mut digits: Vec<u32> = vec![0];
    for mut carry in hex.chars().filter_map(|digit| digit.to_digit(16)) {
        for digit in &mut digits {
            carry += *digit * 16;
            *digit = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 10)).collect()
}
