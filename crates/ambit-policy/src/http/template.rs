//! Paths as policies write them: a text, or a template with `{*}` and `{**}`.
//!
//! A template is matched segment by segment in one pass, whatever the length of the path.

use std::fmt;

use ambit_types::Str;

use super::text;
use crate::model::StringMatch;

/// What a path is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Exact, prefix, suffix or presence.
    Text(StringMatch),
    /// A template.
    Template(Template),
}

impl PathMatch {
    /// Whether a path agrees.
    pub(super) fn agrees(&self, path: &[u8]) -> bool {
        match self {
            Self::Text(wanted) => text::agrees(wanted, path),
            Self::Template(template) => template.agrees(path),
        }
    }

    /// Whether it speaks of `;parameters` itself, so that a path is only compared with them.
    pub(super) fn names_parameters(&self) -> bool {
        match self {
            Self::Text(StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text)) => {
                text.contains(';')
            }
            Self::Text(StringMatch::Presence) => false,
            Self::Template(template) => template.text.contains(';'),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(wanted) => write!(f, "{wanted}"),
            Self::Template(template) => write!(f, "{template}"),
        }
    }
}

/// A path with operators: `{*}` is one segment that is not empty, `{**}` any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: Str,
    head: Vec<Segment>,
    tail: Tail,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Str),
    One,
}

/// What follows the segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Tail {
    /// Nothing.
    End,
    /// Anything: `{**}` at the end.
    Anything,
    /// Anything with at least one more slash: `{**}/`.
    Deeper,
    /// Anything that ends so: `{**}/bar`, held with its slash.
    Ending(Str),
}

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not begin with `/`.
    #[error("a template begins with a slash")]
    Slash,
    /// An operator with something beside it, or braces of another kind.
    #[error("{{*}} and {{**}} each stand alone between slashes, and other braces have no meaning")]
    Operator,
    /// An operator behind `{**}`.
    #[error("{{**}} is the last operator")]
    AfterRest,
    /// A character that no literal segment may have, a bare star among them.
    #[error("a segment of a template has letters, digits and -._~%!$&'()+,;:@= only, and at least one")]
    Literal,
}

impl Template {
    /// Whether a text is meant as a template.
    pub fn is_template(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    /// Reads a template such as `/foo/{*}/bar/{**}`.
    ///
    /// # Errors
    /// [`TemplateError`] names the rule. Source: Istio's `AuthorizationPolicy`, `paths`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let inner = text.strip_prefix('/').ok_or(TemplateError::Slash)?;
        let (before, after) = match inner.split_once("{**}") {
            Some((before, after)) => (before, Some(after)),
            None => (inner, None),
        };
        let (before, tail) = match after {
            None => (before, Tail::End),
            Some(after) => (alone(before)?, tail(after)?),
        };
        let segments: Vec<&str> = if before.is_empty() { Vec::new() } else { before.split('/').collect() };
        let is_last = |index: usize| tail == Tail::End && index + 1 == segments.len();
        let segment = |(index, segment): (usize, &&str)| match *segment {
            "{*}" => Ok(Segment::One),
            "" if is_last(index) => Ok(Segment::Literal("".into())),
            literal => literal_segment(literal).map(|text| Segment::Literal(text.into())),
        };
        let head = segments.iter().enumerate().map(segment).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), head, tail })
    }

    /// How every path that agrees begins.
    pub(super) fn beginning(&self) -> &str {
        self.text.split('{').next().unwrap_or_default()
    }

    fn agrees(&self, path: &[u8]) -> bool {
        if path.first() != Some(&b'/') {
            return false;
        }
        let mut rest = Some(path);
        for segment in &self.head {
            let Some([b'/', inner @ ..]) = rest else { return false };
            let end = inner.iter().position(|b| *b == b'/').unwrap_or(inner.len());
            let agrees = match segment {
                Segment::Literal(literal) => inner[..end] == *literal.as_bytes(),
                Segment::One => end > 0,
            };
            if !agrees {
                return false;
            }
            rest = (end < inner.len()).then(|| &inner[end..]);
        }
        match (&self.tail, rest) {
            (Tail::End, rest) => rest.is_none(),
            (_, None | Some([])) => false,
            (Tail::Anything, Some(_)) => true,
            (Tail::Deeper, Some([_, inner @ ..])) => inner.contains(&b'/'),
            (Tail::Ending(ending), Some([_, inner @ ..])) => inner.ends_with(ending.as_bytes()),
        }
    }
}

/// What stands before `{**}`: nothing, or segments up to a slash.
fn alone(before: &str) -> Result<&str, TemplateError> {
    if before.is_empty() { Ok(before) } else { before.strip_suffix('/').ok_or(TemplateError::Operator) }
}

/// What stands behind `{**}`.
fn tail(after: &str) -> Result<Tail, TemplateError> {
    if after.contains("{*}") || after.contains("{**}") {
        return Err(TemplateError::AfterRest);
    }
    let Some(ending) = after.strip_prefix('/') else {
        return if after.is_empty() { Ok(Tail::Anything) } else { Err(TemplateError::Operator) };
    };
    if ending.is_empty() {
        return Ok(Tail::Deeper);
    }
    for segment in ending.strip_suffix('/').unwrap_or(ending).split('/') {
        literal_segment(segment)?;
    }
    Ok(Tail::Ending(after.into()))
}

fn literal_segment(text: &str) -> Result<&str, TemplateError> {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
    if text.contains(['{', '}']) {
        Err(TemplateError::Operator)
    } else if text.is_empty() || !text.bytes().all(byte) {
        Err(TemplateError::Literal)
    } else {
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
