//! Claims of a token: JSON read once, with bounds, into a tree that conditions walk.
//!
//! A name that occurs twice in one object is refused: readers differ on which counts. It does not judge what the
//! claims say.

use std::collections::BTreeMap;
use std::fmt;

use ambit_types::Str;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of lists and objects, the outermost object counted.
pub const DEPTH_MAX: usize = 32;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction or exponent that fits 64 bits.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Str),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(BTreeMap<Str, Self>),
}

impl Claim {
    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Float(_)
            | Self::List(_)
            | Self::Object(_) => None,
        }
    }

    /// A string, integer or boolean as text; nothing for the others.
    pub fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_string()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Bool(truth) => Some(truth.to_string()),
            Self::Null | Self::Float(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// Seconds since 1970, for `exp`, `nbf` and `iat` (RFC 7519 section 2, NumericDate).
    pub fn as_seconds(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The strings of the claim: its own, or those of its list.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let list = match self {
            Self::List(list) => &list[..],
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Object(_) => std::slice::from_ref(self),
        };
        list.iter().filter_map(Self::as_text)
    }
}

/// Names of nested objects down to one claim, such as `[realm_access][roles]`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath(Vec<Str>);

impl ClaimPath {
    /// A path of these names; none if there are none or one is empty.
    pub fn new<N: Into<Str>>(names: impl IntoIterator<Item = N>) -> Option<Self> {
        let names: Vec<Str> = names.into_iter().map(Into::into).collect();
        (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(Self(names))
    }

    /// The names, outermost first.
    pub fn names(&self) -> &[Str] {
        &self.0
    }
}

impl fmt::Display for ClaimPath {
    /// `[realm_access][roles]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "[{name}]"))
    }
}

/// Every claim of a token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims(BTreeMap<Str, Claim>);

/// Why a text is no set of claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payload is no JSON object of claims: {what}")]
pub struct ClaimsError {
    /// What the parser says; it names positions, never values.
    pub what: String,
}

impl Claims {
    /// Reads the payload of a token.
    ///
    /// # Errors
    /// [`ClaimsError`] if it is no JSON object, nests deeper than [`DEPTH_MAX`], or names a claim twice.
    pub fn parse(json: &[u8]) -> Result<Self, ClaimsError> {
        let mut parser = serde_json::Deserializer::from_slice(json);
        let read = Nested { depth: DEPTH_MAX }.deserialize(&mut parser);
        let read = read.and_then(|claim| parser.end().map(|()| claim));
        match read {
            Ok(Claim::Object(claims)) => Ok(Self(claims)),
            Ok(_) => Err(ClaimsError { what: "not an object".to_owned() }),
            Err(error) => Err(ClaimsError { what: position(&error) }),
        }
    }

    /// A claim of the outermost object.
    pub fn get(&self, name: &str) -> Option<&Claim> {
        self.0.get(name)
    }

    /// A nested claim; a name with dots is one name.
    pub fn at(&self, path: &ClaimPath) -> Option<&Claim> {
        let (first, rest) = path.names().split_first()?;
        rest.iter().try_fold(self.get(first)?, |claim, name| match claim {
            Claim::Object(inner) => inner.get(name),
            Claim::Null
            | Claim::Bool(_)
            | Claim::Integer(_)
            | Claim::Float(_)
            | Claim::Text(_)
            | Claim::List(_) => None,
        })
    }

    /// A claim by the dotted path of `outputClaimToHeaders`: a claim of that very name first, then nested ones.
    pub fn dotted(&self, path: &str) -> Option<&Claim> {
        self.get(path).or_else(|| self.at(&ClaimPath::new(path.split('.'))?))
    }

    /// Turns strings of words, such as `scope`, into lists of them.
    pub(super) fn split_words<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        for name in names {
            let Some(claim) = self.0.get_mut(name) else { continue };
            if let Some(text) = claim.as_text() {
                let words = text.split_ascii_whitespace().map(|word| Claim::Text(word.into())).collect();
                *claim = Claim::List(words);
            }
        }
    }
}

/// Where and what, without the parser's quotation of the input.
fn position(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a name twice, or nested too deeply",
        serde_json::error::Category::Eof => "cut short",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "a syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// Reads one value, and what is inside it with one level less.
struct Nested {
    depth: usize,
}

impl Nested {
    fn inner<E: de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Claim;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Claim, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(Claim::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Claim, E> {
        Ok(Claim::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Claim, E> {
        Ok(Claim::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Claim, E> {
        Ok(Claim::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Claim, E> {
        Ok(Claim::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Claim, E> {
        Ok(Claim::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Claim, A::Error> {
        let mut list = Vec::new();
        while let Some(claim) = seq.next_element_seed(self.inner()?)? {
            list.push(claim);
        }
        Ok(Claim::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claim, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let claim = map.next_value_seed(self.inner()?)?;
            if object.insert(Str::from(name), claim).is_some() {
                return Err(de::Error::custom("a name twice"));
            }
        }
        Ok(Claim::Object(object))
    }
}
