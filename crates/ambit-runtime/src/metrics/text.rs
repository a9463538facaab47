//! Families written by hand, for a [`Source`](super::Source).

use std::fmt::{Display, Write as _};

/// Begins a family; `kind` is `counter`, `gauge` or `histogram`.
///
/// OpenMetrics names a family of counters without the `_total` of its series.
pub fn family(text: &mut String, name: &str, kind: &str) {
    let of_counters = name.strip_suffix("_total").filter(|_| kind == "counter");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# TYPE {} {kind}", of_counters.unwrap_or(name));
}

/// Adds a series to the family that was begun last; `labels` as in `a="b",c="d"`, escaped, or nothing.
pub fn series(text: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// A label's value as it may stand between its quotes.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A family of one series without labels.
pub fn single(text: &mut String, name: &str, kind: &str, value: impl Display) {
    family(text, name, kind);
    series(text, name, "", value);
}

/// The exporter's text as OpenMetrics has it: no empty lines, families of counters named without `_total`.
pub(super) fn as_openmetrics(exported: &str) -> String {
    let mut text = String::with_capacity(exported.len());
    for line in exported.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# TYPE ").and_then(|family| family.strip_suffix("_total counter")) {
            Some(name) => family(&mut text, name, "counter"),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}
