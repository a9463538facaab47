//! Names of resources on the wire, and texts of a peer: how long they may be, for clients and servers alike.

/// Longest name of a resource, or key that leads to one, in bytes.
///
/// The longest that objects of Kubernetes make, a uid with a namespace and a name at their limits, has some 400.
pub const NAME_BYTES_MAX: usize = 1024;

/// The beginning of a text that has room, in whole characters.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A text of a peer as it is kept and shown: one that is longer than `bytes_max` is cut there and ends with `…`.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    let kept = beginning(text, bytes_max);
    if kept.len() < text.len() { format!("{kept}…") } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, max, want) in [
            ("", 0, ""),
            ("abc", 3, "abc"),
            ("abc", 2, "ab…"),
            ("aéb", 2, "a…"),
            ("aéb", 3, "aé…"),
            ("é", 0, "…"),
        ] {
            assert_eq!(shortened(text, max), want, "{text} at {max}");
        }
    }
}
