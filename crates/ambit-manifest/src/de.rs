//! A serde deserializer over the marked tree that knows where everything stands.
//!
//! A type tells it which fields and variants exist, so misspelt ones are found with their place and nearest valid
//! name. A field nobody knows is recorded and skipped; a value of the wrong type is recorded, taken out, and the
//! document is read again, so that one reading reports everything. Defaults and meaning are the types' affair.

mod key;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use crate::nearest::{listed, nearest};
use crate::problem::{Finding, Position};
use crate::scalar::Meaning;
use crate::tree::{Body, Entry, NodeId, Tree};

/// Most values of a wrong type that are reported for one document.
const ROUNDS_MAX: usize = 50;

/// Whether messages may repeat what a field holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quote {
    /// They may.
    Values,
    /// They must not: it may be a secret.
    Nothing,
}

/// What becomes of a field that the type does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is refused, as a misspelling.
    Refused,
    /// It is refused below `spec` and passed over elsewhere.
    RefusedInSpec,
    /// It is passed over, as one of a newer server.
    PassedOver,
}

/// Reads a document as `T` and reports everything that does not fit; `None` if there is nothing usable.
pub(crate) fn read<T: DeserializeOwned>(
    tree: &Tree,
    root: NodeId,
    quote: Quote,
) -> (Option<T>, Vec<Finding>) {
    read_with(tree, root, quote, Unknown::Refused)
}

/// As [`read`], with a say over unknown fields.
pub(crate) fn read_with<T: DeserializeOwned>(
    tree: &Tree,
    root: NodeId,
    quote: Quote,
    passing: Unknown,
) -> (Option<T>, Vec<Finding>) {
    let reading = Reading { tree, quote, passing, unknown: RefCell::default(), unusable: RefCell::default() };
    let mut findings = Vec::new();
    let mut value = None;
    for _ in 0..ROUNDS_MAX {
        match T::deserialize(At { reading: &reading, node: root, path: &Path::Root }) {
            Ok(read) => {
                value = Some(read);
                break;
            }
            Err(stop) => {
                let Some(blame) = stop.blame else {
                    findings.push(Finding::new(tree.node(root).at, "", stop.message));
                    break;
                };
                findings
                    .push(Finding::new(blame.at, blame.path, stop.message).nearest(stop.nearest.as_deref()));
                if blame.node == root || !reading.unusable.borrow_mut().insert(blame.node) {
                    break;
                }
            }
        }
    }
    findings.extend(reading.unknown.into_inner());
    findings.sort();
    findings.dedup();
    (value, findings)
}

struct Reading<'t> {
    tree: &'t Tree,
    quote: Quote,
    passing: Unknown,
    unknown: RefCell<BTreeSet<Finding>>,
    unusable: RefCell<BTreeSet<NodeId>>,
}

/// The way from the top of the document, kept on the stack while descending.
enum Path<'p> {
    Root,
    Field(&'p Self, &'p str),
    Key(&'p Self, &'p str),
    Item(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Item(above, index) => write!(f, "{above}[{index}]"),
            Path::Key(above, name) => write!(f, "{above}[{name}]"),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(above, name) => write!(f, "{above}.{name}"),
        }
    }
}

/// Why reading stopped; `blame` is filled by the innermost node that saw it.
#[derive(Debug)]
struct Stop {
    message: String,
    nearest: Option<String>,
    blame: Option<Blame>,
}

#[derive(Debug)]
struct Blame {
    node: NodeId,
    at: Position,
    path: String,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), nearest: None, blame: None }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let message =
            format!("\"{variant}\" is not a valid value, valid are {}", listed(expected.iter().copied()));
        let nearest = nearest(variant, expected.iter().copied()).map(str::to_owned);
        Self { message, nearest, blame: None }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field {field} is missing"))
    }
}

#[derive(Clone, Copy)]
struct At<'r, 't> {
    reading: &'r Reading<'t>,
    node: NodeId,
    path: &'r Path<'r>,
}

impl<'r, 't> At<'r, 't> {
    fn body(&self) -> &'t Body {
        &self.reading.tree.node(self.node).body
    }

    fn position(&self) -> Position {
        self.reading.tree.node(self.node).at
    }

    fn blamed<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|mut stop| {
            let here = || Blame { node: self.node, at: self.position(), path: self.path.to_string() };
            stop.blame.get_or_insert_with(here);
            stop
        })
    }

    fn wrong<T>(&self, expected: &str) -> Result<T, Stop> {
        let found = match self.body() {
            Body::List(_) => "a list".to_owned(),
            Body::Map(_) => "a map".to_owned(),
            Body::Scalar { text, meaning } => described(text, meaning, self.reading.quote),
        };
        let quote = matches!(self.body(), Body::Scalar { meaning, .. } if *meaning != Meaning::Null)
            && expected == STRING;
        let hint = if quote { "; put it in quotes" } else { "" };
        self.blamed(Err(de::Error::custom(format_args!("expected {expected}, found {found}{hint}"))))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V, expected: &str) -> Result<V::Value, Stop> {
        let result = match self.body() {
            Body::Scalar { meaning: Meaning::Signed(n), .. } => visitor.visit_i64(*n),
            Body::Scalar { meaning: Meaning::Unsigned(n), .. } => visitor.visit_u64(*n),
            Body::Scalar { meaning: Meaning::Float(n), .. } if expected == NUMBER => visitor.visit_f64(*n),
            Body::Scalar { .. } | Body::List(_) | Body::Map(_) => return self.wrong(expected),
        };
        let result = result.map_err(|_: Stop| {
            let Body::Scalar { text, .. } = self.body() else { return de::Error::custom("not a number") };
            de::Error::custom(format_args!("the number {text} is out of range"))
        });
        self.blamed(result)
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let Body::List(items) = self.body() else { return self.wrong("a list") };
        self.blamed(visitor.visit_seq(Items { at: self, items, next: 0 }))
    }

    fn map<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
        free: bool,
    ) -> Result<V::Value, Stop> {
        let Body::Map(entries) = self.body() else { return self.wrong("a map") };
        self.blamed(visitor.visit_map(Entries { at: self, entries, next: 0, fields, free }))
    }

    fn report(&self, finding: Finding) {
        self.reading.unknown.borrow_mut().insert(finding);
    }
}

const STRING: &str = "a string";
const NUMBER: &str = "a number";
const INTEGER: &str = "an integer";

fn described(text: &str, meaning: &Meaning, quote: Quote) -> String {
    let what = match meaning {
        Meaning::Null => return "nothing".to_owned(),
        Meaning::Bool(_) => "boolean",
        Meaning::Signed(_) | Meaning::Unsigned(_) => "integer",
        Meaning::Float(_) => "number",
        Meaning::Text => "string",
    };
    match (quote, meaning) {
        (Quote::Nothing, _) => format!("a value of type {what}"),
        (Quote::Values, Meaning::Text) => format!("the {what} {text:?}"),
        (Quote::Values, _) => format!("the {what} {text}"),
    }
}

/// Puts a type's own complaint about a text, such as base64 or a time, into our words.
fn unfit(mut stop: Stop) -> Stop {
    let cause = stop.message.trim_end_matches('.');
    let mut letters = cause.chars();
    let lower = letters.next().map(|c| c.to_lowercase().chain(letters).collect::<String>());
    stop.message = format!("the text does not fit the field: {}", lower.unwrap_or_default());
    stop
}

macro_rules! integers {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.number(visitor, INTEGER)
        })+
    };
}

impl<'de> de::Deserializer<'de> for At<'_, '_> {
    type Error = Stop;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.body() {
            Body::Scalar { text, meaning } => self.blamed(match meaning {
                Meaning::Null => visitor.visit_unit(),
                Meaning::Bool(b) => visitor.visit_bool(*b),
                Meaning::Signed(n) => visitor.visit_i64(*n),
                Meaning::Unsigned(n) => visitor.visit_u64(*n),
                Meaning::Float(n) => visitor.visit_f64(*n),
                Meaning::Text => visitor.visit_str(text),
            }),
            Body::List(_) => self.list(visitor),
            Body::Map(_) => self.map(visitor, None, false),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.body() {
            Body::Scalar { meaning: Meaning::Bool(b), .. } => self.blamed(visitor.visit_bool(*b)),
            Body::Scalar { .. } | Body::List(_) | Body::Map(_) => self.wrong("true or false"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.number(visitor, NUMBER)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.number(visitor, NUMBER)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    /// A missing text is empty, as in the API server: `data: {key: }` is common.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.body() {
            Body::Scalar { text, meaning: Meaning::Text } => {
                self.blamed(visitor.visit_str(text).map_err(unfit))
            }
            Body::Scalar { meaning: Meaning::Null, .. } => self.blamed(visitor.visit_str("")),
            Body::Scalar { .. } | Body::List(_) | Body::Map(_) => self.wrong(STRING),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.reading.tree.is_null(self.node) {
            return self.blamed(visitor.visit_none());
        }
        self.blamed(visitor.visit_some(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.reading.tree.is_null(self.node) {
            return self.blamed(visitor.visit_unit());
        }
        self.wrong("nothing")
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.blamed(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.map(visitor, None, true)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.map(visitor, Some(fields), false)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Body::Scalar { text, meaning: Meaning::Text } = self.body() else {
            return self.wrong(&format!("one of {}", listed(variants.iter().copied())));
        };
        let variant: StrDeserializer<'_, Stop> = text.as_str().into_deserializer();
        self.blamed(visitor.visit_enum(variant))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }
}

struct Items<'r, 't> {
    at: At<'r, 't>,
    items: &'t [NodeId],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        while let Some(node) = self.items.get(self.next).copied() {
            let index = self.next;
            self.next += 1;
            if self.at.reading.unusable.borrow().contains(&node) {
                continue;
            }
            let path = Path::Item(self.at.path, index);
            return seed.deserialize(At { reading: self.at.reading, node, path: &path }).map(Some);
        }
        Ok(None)
    }
}

struct Entries<'r, 't> {
    at: At<'r, 't>,
    entries: &'t [Entry],
    next: usize,
    /// The fields of a struct, if it is one.
    fields: Option<&'static [&'static str]>,
    /// Keys are data, as those of labels, and are written in brackets.
    free: bool,
}

impl<'t> Entries<'_, 't> {
    fn path<'p>(&'p self, entry: &'p Entry) -> Path<'p> {
        if self.free { Path::Key(self.at.path, &entry.key) } else { Path::Field(self.at.path, &entry.key) }
    }

    /// The next entry that counts; those that do not are reported.
    fn advance(&mut self) -> Option<&'t Entry> {
        while let Some(entry) = self.entries.get(self.next) {
            if self.counts(entry) && !self.at.reading.unusable.borrow().contains(&entry.value) {
                return Some(entry);
            }
            self.next += 1;
        }
        None
    }

    fn counts(&self, entry: &Entry) -> bool {
        let path = self.path(entry);
        if let Some(first) = entry.repeats {
            let mut finding = Finding::new(entry.at, path.to_string(), "the field is given twice");
            finding.other = Some(first);
            self.at.report(finding);
            return false;
        }
        let Some(fields) = self.fields else { return true };
        let known = fields.contains(&entry.key.as_str());
        let refused = match self.at.reading.passing {
            Unknown::Refused => true,
            Unknown::RefusedInSpec => path.to_string().starts_with("spec"),
            Unknown::PassedOver => false,
        };
        if !known && refused {
            let near = nearest(&entry.key, fields.iter().copied());
            let message = match near {
                Some(_) => "unknown field".to_owned(),
                None => format!("unknown field, known are {}", listed(fields.iter().copied())),
            };
            self.at.report(Finding::new(entry.at, path.to_string(), message).nearest(near));
        }
        known
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some(entry) = self.advance() else { return Ok(None) };
        let key = seed.deserialize(key::Key::new(&entry.key)).map_err(|mut stop| {
            let path = self.path(entry).to_string();
            stop.blame.get_or_insert(Blame { node: entry.value, at: entry.at, path });
            stop
        })?;
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let entry = self.entries.get(self.next).ok_or_else(|| de::Error::custom("a value without a key"))?;
        self.next += 1;
        let path = self.path(entry);
        seed.deserialize(At { reading: self.at.reading, node: entry.value, path: &path })
    }
}
