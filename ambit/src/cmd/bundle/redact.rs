//! Takes secrets out of what goes into an archive: keys and tokens by what they look like, credentials by where they
//! stand. Pure.
//!
//! Where it is in doubt it takes out too much. What is left keeps its form, so that what reads it still can.

use std::sync::LazyLock;

use regex::bytes::Regex;
use serde_json::{Map, Value};

use super::find;

#[cfg(test)]
mod tests;

/// What stands where something was taken out.
pub(super) const MARK: &str = "[redacted]";
/// The same where base64 has to stand.
const MARK_IN_BASE64: &str = "W3JlZGFjdGVkXQ==";
/// Shortest text that can hold any of it.
const TEXT_BYTES_MIN: usize = 8;
/// Shortest name that can.
const NAME_BYTES_MIN: usize = 20;
/// What stands behind what the pattern keeps.
const INSTEAD: &[u8] = b"${1}[redacted]";
/// The same before the host of a URL.
const INSTEAD_IN_URL: &[u8] = b"${1}[redacted]@";

/// Headers whose values are credentials.
const HEADERS: &str = "(?:proxy-)?authorization|set-cookie|cookie|x-api-key|x-(?:[a-z0-9]+-)*token";

/// Parts of names that only secrets have.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "access-key",
    "accesskey",
    "private_key",
    "private-key",
    "privatekey",
    "signing_key",
    "signing-key",
    "encryption_key",
    "encryption-key",
];
/// Ends of them; `bypass` is none.
const SECRET_ENDS: &[&str] = &["_pass", "-pass", ".pass", "pgpass", "dbpass", "pwd"];
/// Fields that say where a secret is or what became of secrets, not what they are.
const PLACES: &[&str] = &["secrets", "secretname", "secretnamespace", "tokenpath", "credentialname"];
/// Words with which an argument, or a line of settings, ends that has a secret behind it.
const ARGUMENTS: &str =
    "password|passwd|passphrase|secret|token|credentials?|(?:api|access|private|signing|encryption)[-_]?key";
/// Ends of the names of variables that have one.
const VARIABLES: &str = "PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRET|TOKEN|CREDENTIALS?|(?:API|ACCESS|PRIVATE|SIGNING|ENCRYPTION)_?KEY";
/// A value behind one of them, in quotes or not.
const VALUE: &str = r#"(?:\\?"[^"\\]*\\?"|'[^']*'|[^\s"'\\,;&}]+)"#;
/// The namespace of the mesh's own configuration.
const ROOT_NAMESPACE: &str = "istio-system";

/// Credentials by where they stand, and what stands there afterwards.
static CREDENTIALS: LazyLock<[(Regex, &[u8]); 10]> = LazyLock::new(|| {
    let pattern = |text: &str| Regex::new(text).expect("a pattern of this file compiles, which a test shows");
    [
        // "authorization": "Basic …", also inside of a quoted text.
        (pattern(&format!(r#"(?i-u)((?:{HEADERS})\\?"[ \t]*[:=,][ \t]*\\?")(?:\\.|[^"\\\r\n])*"#)), INSTEAD),
        // authorization: Basic …, to the end of the line.
        (pattern(&format!(r"(?im-u)((?:^|[^a-z0-9_.])(?:{HEADERS})[ \t]*[:=][ \t]*)[^\r\n]+")), INSTEAD),
        (pattern(r"(?i-u)\b(bearer[ \t]+)[a-z0-9._~+/=-]{8,}"), INSTEAD),
        (pattern(r#"(?i-u)([a-z][a-z0-9+.-]*://[^/\s:@"'?#]*:)[^/\s"'?#]+@"#), INSTEAD_IN_URL),
        (pattern(r#"(?i-u)([a-z][a-z0-9+.-]*://)[^/\s:@"'?#]+@"#), INSTEAD_IN_URL),
        (
            pattern(
                r#"(?i-u)([?&](?:access_token|id_token|token|api_key|apikey|password|secret)=)[^&\s"'#]+"#,
            ),
            INSTEAD,
        ),
        // --db-password=…, as an argument of a command, and --from-literal=token=….
        (
            pattern(&format!(r#"(?i-u)((?:^|[\s"'])--?(?:[a-z0-9]+[-_.])*(?:{ARGUMENTS})[= ]){VALUE}"#)),
            INSTEAD,
        ),
        (pattern(&format!(r"(?i-u)(=(?:[a-z0-9]+[-_.])*(?:{ARGUMENTS})=){VALUE}")), INSTEAD),
        // PGPASSWORD=… before a command.
        (pattern(&format!(r"(?-u)(\b[A-Z][A-Z0-9_]*(?:{VARIABLES})=){VALUE}")), INSTEAD),
        // password: …, as a setting. Other words stand in sentences too often.
        (pattern(&format!(r#"(?i-u)((?:password|passwd|passphrase)\\?"?[ \t]*[:=][ \t]*){VALUE}"#)), INSTEAD),
    ]
});

/// A text without its secrets, and how many there were.
pub(super) fn text(bytes: &[u8]) -> (Vec<u8>, usize) {
    if bytes.len() < TEXT_BYTES_MIN {
        return (bytes.to_vec(), 0);
    }
    let (mut clean, mut at) = (Vec::with_capacity(bytes.len()), 0);
    let found = find::keys(bytes);
    for one in &found {
        clean.extend_from_slice(&bytes[at..one.range.start]);
        clean.extend_from_slice(MARK.as_bytes());
        at = one.range.end;
    }
    clean.extend_from_slice(&bytes[at..]);
    let mut count = found.len();
    for (pattern, instead) in CREDENTIALS.iter() {
        let before = pattern.find_iter(&clean).count();
        if before > 0 {
            count += before;
            clean = pattern.replace_all(&clean, *instead).into_owned();
        }
    }
    (clean, count)
}

/// The same of a text that is UTF-8.
pub(super) fn string(text: &str) -> (String, usize) {
    let (clean, count) = self::text(text.as_bytes());
    (String::from_utf8_lossy(&clean).into_owned(), count)
}

/// Lines, some of which may be JSON, without their secrets, and how many there were.
pub(super) fn lines(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut clean, mut count) = (Vec::with_capacity(bytes.len()), 0);
    // Lines that are no JSON, which are read together: a key has several.
    let mut plain: Vec<u8> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (stamp, rest) = after_stamp(line);
        let Some(mut value) = object(rest) else {
            plain.extend_from_slice(line);
            continue;
        };
        count += flush(&mut plain, &mut clean);
        match json(&mut value) {
            0 => clean.extend_from_slice(line),
            more => {
                count += more;
                clean.extend_from_slice(stamp);
                clean.extend_from_slice(value.to_string().as_bytes());
                clean.push(b'\n');
            }
        }
    }
    count += flush(&mut plain, &mut clean);
    (clean, count)
}

/// The time that an API server puts before each line of a log, and the line.
fn after_stamp(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').map_or(0, |blank| blank + 1);
    let is_stamp =
        end > 20 && line[..end - 1].iter().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(byte));
    line.split_at(if is_stamp { end } else { 0 })
}

fn flush(plain: &mut Vec<u8>, clean: &mut Vec<u8>) -> usize {
    let (text, count) = text(plain);
    clean.extend_from_slice(&text);
    plain.clear();
    count
}

/// A line that is an object or a list.
fn object(line: &[u8]) -> Option<Value> {
    let begins = line.trim_ascii_start().first();
    matches!(begins, Some(b'{' | b'[')).then(|| serde_json::from_slice(line).ok()).flatten()
}

/// Takes secrets out of a document; how many there were.
pub(super) fn json(value: &mut Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => in_string(text),
        Value::Array(items) => match items.as_mut_slice() {
            // A header as a pair of name and value.
            [Value::String(name), second @ Value::String(_)] if is_header(name.as_str()) => take(second),
            items => behind_arguments(items) + items.iter_mut().map(json).sum::<usize>(),
        },
        Value::Object(fields) => in_object(fields),
    }
}

fn in_object(fields: &mut Map<String, Value>) -> usize {
    let mut count = 0;
    let kind = fields.get("kind").and_then(Value::as_str);
    let (is_secret, is_list) = (kind == Some("Secret"), kind == Some("SecretList"));
    let is_config_map = kind == Some("ConfigMap");
    if is_secret {
        count += in_secret(fields);
    }
    if is_list {
        // Elements of a list do not say what they are.
        let items = fields.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten();
        count += items.filter_map(Value::as_object_mut).map(in_secret).sum::<usize>();
    }
    if is_config_map {
        count += in_config_map(fields);
    }
    let names_secret = fields.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
    if names_secret && let Some(value) = fields.get_mut("value") {
        count += take(value);
    }
    for (name, value) in fields.iter_mut() {
        let all_texts =
            |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
        let is_text = (value.is_string() || all_texts(value)) && is_secret_name(name) && !is_place(name);
        count += if is_text || is_header(name) { take(value) } else { json(value) };
    }
    count + in_names(fields)
}

/// The argument behind `--password` and its like, where each is an element of a list.
fn behind_arguments(items: &mut [Value]) -> usize {
    let mut count = 0;
    let mut is_behind = false;
    for item in items {
        if is_behind && item.is_string() {
            count += take(item);
        }
        is_behind = item.as_str().is_some_and(|text| ARGUMENT_ALONE.is_match(text.as_bytes()));
    }
    count
}

/// What a ConfigMap of somebody else holds; its keys stay. The mesh's configuration and the roots that it publishes are
/// its own.
fn in_config_map(map: &mut Map<String, Value>) -> usize {
    let metadata = |name: &str| map.get("metadata").and_then(|metadata| metadata.get(name)?.as_str());
    let is_roots = metadata("name") == Some("istio-ca-root-cert");
    if metadata("name") == Some("istio") && metadata("namespace") == Some(ROOT_NAMESPACE) {
        return 0;
    }
    let mut count = 0;
    for (part, mark) in [("data", MARK), ("binaryData", MARK_IN_BASE64)] {
        for (key, value) in map.get_mut(part).and_then(Value::as_object_mut).into_iter().flatten() {
            if !is_roots || key != "root-cert.pem" {
                *value = Value::from(mark);
                count += 1;
            }
        }
    }
    count
}

/// Names are as little to be trusted as values.
fn in_names(fields: &mut Map<String, Value>) -> usize {
    let changed: Vec<(String, String, usize)> = fields
        .keys()
        .filter(|name| name.len() >= NAME_BYTES_MIN)
        .map(|name| (name.clone(), string(name)))
        .filter(|(_, (_, count))| *count > 0)
        .map(|(name, (clean, count))| (name, clean, count))
        .collect();
    let mut total = 0;
    for (name, clean, count) in changed {
        if let Some(value) = fields.remove(&name) {
            fields.insert(clean, value);
        }
        total += count;
    }
    total
}

/// Everything that a Secret holds; its keys stay, and so does its form.
fn in_secret(secret: &mut Map<String, Value>) -> usize {
    let mut count = 0;
    for (part, mark) in [("data", MARK_IN_BASE64), ("stringData", MARK)] {
        for value in secret.get_mut(part).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
        {
            *value = Value::from(mark);
            count += 1;
        }
    }
    count
}

/// Takes out a value, and those of a list; of anything else what [`json`] takes.
fn take(value: &mut Value) -> usize {
    match value {
        Value::String(text) if text.is_empty() || [MARK, MARK_IN_BASE64].contains(&text.as_str()) => 0,
        Value::String(_) | Value::Number(_) => {
            *value = Value::from(MARK);
            1
        }
        Value::Array(items) if !items.iter().any(Value::is_object) => items.iter_mut().map(take).sum(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => json(value),
    }
}

/// Takes secrets out of a text, also where it is JSON itself, as some annotations are.
fn in_string(text: &mut String) -> usize {
    if let Some(mut inner) = object(text.as_bytes()) {
        let count = json(&mut inner);
        if count > 0 {
            *text = inner.to_string();
        }
        return count;
    }
    let (clean, count) = string(text);
    if count > 0 {
        *text = clean;
    }
    count
}

fn is_header(name: &str) -> bool {
    HEADERS_ALONE.is_match(name.as_bytes())
}

static HEADERS_ALONE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!("(?i-u)^(?:{HEADERS})$"))
        .expect("a pattern of this file compiles, which a test shows")
});

static ARGUMENT_ALONE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!("(?i-u)^--?(?:[a-z0-9]+[-_.])*(?:{ARGUMENTS})$"))
        .expect("a pattern of this file compiles, which a test shows")
});

/// Whether a name, of a header, a field or a variable, is that of a credential.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let says_so = || SECRET_WORDS.iter().any(|word| name.contains(word));
    is_header(&name) || says_so() || name == "pass" || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a field with such a name only says where the secret is.
fn is_place(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PLACES.contains(&&*name) || name.ends_with("file") || name.ends_with("uri")
}
