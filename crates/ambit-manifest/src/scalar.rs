//! What a plain YAML scalar means, read as the Kubernetes tools read it.
//!
//! They follow YAML 1.1 where it differs from 1.2: `yes` and `off` are booleans and `0644` is octal. A manifest
//! must not mean one thing here and another in a cluster. Quoted and block scalars are always text.

/// The meaning of one scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text,
}

/// The meaning of a scalar written without quotes and without a tag.
pub(crate) fn plain(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Meaning::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Meaning::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Meaning::Text;
    }
    integer(text).or_else(|| float(text)).unwrap_or(Meaning::Text)
}

fn integer(text: &str) -> Option<Meaning> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    let (radix, digits) = match plain.as_str() {
        p if p.starts_with("0x") => (16, &p[2..]),
        p if p.starts_with("0o") => (8, &p[2..]),
        p if p.starts_with("0b") => (2, &p[2..]),
        p if p.len() > 1 && p.starts_with('0') => (8, &p[1..]),
        p => (10, p),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return 0i64.checked_sub_unsigned(magnitude).map(Meaning::Signed);
    }
    Some(i64::try_from(magnitude).map_or(Meaning::Unsigned(magnitude), Meaning::Signed))
}

fn float(text: &str) -> Option<Meaning> {
    let lower = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if lower == ".inf" || lower == ".nan" {
        // JSON has no such numbers, so no Kubernetes field can hold one.
        return None;
    }
    let well_formed =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
            && text.bytes().any(|b| b.is_ascii_digit());
    let value: f64 = if well_formed { text.parse().ok()? } else { return None };
    value.is_finite().then_some(Meaning::Float(value))
}
