//! The syntax of single texts: names, labels, ports by name, CIDRs.
//!
//! Rules are those of the Kubernetes API; each says what is allowed and, where it is plain, what was meant.

use ipnet::IpNet;

/// Why a text is not what it should be.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) nearest: Option<String>,
}

fn wrong(message: String) -> Wrong {
    Wrong { message, nearest: None }
}

/// DNS-1123 label: what namespaces and containers are called.
pub(super) fn dns_label(text: &str) -> Result<(), Wrong> {
    if is_dns_label(text) {
        return Ok(());
    }
    let message = format!(
        "\"{text}\" is not a valid name, which has at most 63 lower-case letters, digits and dashes and no dash at an end"
    );
    Err(Wrong { message, nearest: repaired(text, is_dns_label) })
}

/// DNS-1035 label: a DNS-1123 label that starts with a letter, what services are called.
pub(super) fn service_name(text: &str) -> Result<(), Wrong> {
    dns_label(text)?;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong(format!(
            "\"{text}\" is not a valid name of a service, which starts with a letter"
        )));
    }
    Ok(())
}

/// DNS-1123 subdomain: what most objects are called.
pub(super) fn dns_subdomain(text: &str) -> Result<(), Wrong> {
    if is_dns_subdomain(text) {
        return Ok(());
    }
    let message = format!(
        "\"{text}\" is not a valid name, which has at most 253 lower-case letters, digits, dashes and dots and starts and ends with a letter or digit"
    );
    Err(Wrong { message, nearest: repaired(text, is_dns_subdomain) })
}

/// A host name, possibly with `*.` in front.
pub(super) fn host_name(text: &str) -> Result<(), Wrong> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if is_dns_subdomain(&name.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(wrong(format!("\"{text}\" is not a host name; a wildcard is written *.example.com")))
}

/// Name of a container's port: at most 15 lower-case letters, digits and dashes.
pub(super) fn port_name(text: &str) -> Result<(), Wrong> {
    let well = is_dns_label(text)
        && text.len() <= 15
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase());
    if well {
        return Ok(());
    }
    Err(wrong(format!(
        "\"{text}\" is not a name of a port, which has at most 15 lower-case letters, digits and dashes, one letter among them"
    )))
}

/// Key of a label or annotation: `name` or `prefix/name`.
pub(super) fn qualified_name(text: &str) -> Result<(), Wrong> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let well = prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_text(name);
    if well {
        return Ok(());
    }
    Err(wrong(format!(
        "\"{text}\" is not a valid key, which is NAME or DOMAIN/NAME with a name of at most 63 letters, digits, dashes, dots and underscores"
    )))
}

/// Value of a label.
pub(super) fn label_value(text: &str) -> Result<(), Wrong> {
    if is_label_text(text) {
        return Ok(());
    }
    Err(wrong(format!(
        "\"{text}\" is not a valid label value, which has at most 63 letters, digits, dashes, dots and underscores and starts and ends with a letter or digit"
    )))
}

/// Duration of the Gateway API (GEP-2257): one to four numbers of one to five digits, each with its unit.
pub(super) fn duration(text: &str) -> Result<(), Wrong> {
    let part = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let is_unit = matches!(&rest[digits..digits + letters], "h" | "m" | "s" | "ms");
        ((1..=5).contains(&digits) && is_unit).then_some(digits + letters)
    };
    let (mut rest, mut parts) = (text, 0);
    while let Some(length) = part(rest).filter(|_| parts < 4) {
        rest = &rest[length..];
        parts += 1;
    }
    if rest.is_empty() && parts > 0 {
        return Ok(());
    }
    Err(wrong(format!("\"{text}\" is not a duration such as 500ms, 10s or 1h30m")))
}

/// Duration as `security.istio.io` has it: numbers with fractions, each with its unit.
pub(super) fn fetch_time(text: &str) -> Result<(), Wrong> {
    let is_part = |part: &str| {
        let digits = part.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        part[..digits].parse::<f64>().is_ok() && matches!(&part[digits..], "h" | "m" | "s" | "ms")
    };
    let is_end = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_digit();
    let cuts: Vec<usize> =
        text.as_bytes().windows(2).enumerate().filter(|(_, p)| is_end(p)).map(|(i, _)| i + 1).collect();
    let ends = cuts.iter().copied().chain([text.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    if text.is_ascii() && starts.zip(ends).all(|(from, to)| is_part(&text[from..to])) {
        return Ok(());
    }
    Err(wrong(format!("\"{text}\" is not a duration such as 5s or 500ms")))
}

/// Key of a ConfigMap or Secret.
pub(super) fn data_key(text: &str) -> Result<(), Wrong> {
    let well = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !text.starts_with("..")
        && text != ".";
    if well {
        return Ok(());
    }
    Err(wrong(format!(
        "\"{text}\" is not a valid key, which has letters, digits, dashes, dots and underscores"
    )))
}

/// A network; its address must be the network's own.
pub(super) fn cidr(text: &str) -> Result<IpNet, Wrong> {
    let Ok(net) = text.parse::<IpNet>() else {
        let message = format!("\"{text}\" is not a CIDR such as 10.0.0.0/8 or fd00::/8");
        return Err(Wrong { message, nearest: repaired_cidr(text) });
    };
    if net.addr() != net.network() {
        let message = format!("\"{text}\" has address bits set beyond its prefix length");
        return Err(Wrong { message, nearest: Some(net.trunc().to_string()) });
    }
    Ok(net)
}

/// The longest prefix in place of one that is too long, or an address made a network.
fn repaired_cidr(text: &str) -> Option<String> {
    let (address, _) = text.split_once('/').unwrap_or((text, ""));
    let address: std::net::IpAddr = address.parse().ok()?;
    Some(IpNet::from(address).to_string())
}

pub(super) fn is_dns_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.is_empty()
        || bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The text in lower case with dashes, if that makes it right.
fn repaired(text: &str, right: fn(&str) -> bool) -> Option<String> {
    let candidate = text.to_lowercase().replace(['_', ' '], "-");
    let candidate = candidate.trim_matches(['-', '.']).to_owned();
    right(&candidate).then_some(candidate)
}
