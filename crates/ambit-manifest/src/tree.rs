//! YAML text as a tree whose every node knows its line and column.
//!
//! Anchors are resolved by sharing, merge keys (`<<`) by adding the missing entries. Size and depth of a document
//! are bounded after aliases are counted in full, so that a small file cannot become a huge one. Nothing here
//! knows Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use crate::problem::{Finding, Position};
use crate::scalar::{self, Meaning};

/// Longest text of one file in bytes; more than any API server takes for one object, enough for a set of them.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of a document.
pub const DEPTH_MAX: usize = 64;
/// Most values in one document, aliases counted each time they are used.
pub const NODES_MAX: u64 = 1_000_000;

/// Index of a node in its tree.
pub(crate) type NodeId = usize;

/// All documents of a file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) body: Body,
    /// Values below and including this one, aliases counted in full.
    weight: u64,
    depth: usize,
}

#[derive(Debug)]
pub(crate) enum Body {
    Scalar { text: String, meaning: Meaning },
    List(Vec<NodeId>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: NodeId,
    /// Where the same key stood before in this map; such an entry never counts.
    pub(crate) repeats: Option<Position>,
    /// The key was written bare, so that `<<` means merge.
    plain: bool,
}

/// The roots of a file's documents and what was wrong with its text.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) tree: Tree,
    pub(crate) roots: Vec<NodeId>,
    pub(crate) findings: Vec<Finding>,
}

impl Tree {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The entry of a map, if `id` is one and has it.
    pub(crate) fn entry(&self, id: NodeId, key: &str) -> Option<&Entry> {
        match &self.nodes[id].body {
            Body::Map(entries) => entries.iter().find(|e| e.key == key && e.repeats.is_none()),
            Body::Scalar { .. } | Body::List(_) => None,
        }
    }

    /// Text of the scalar under `key`.
    pub(crate) fn text(&self, id: NodeId, key: &str) -> Option<&str> {
        match &self.nodes[self.entry(id, key)?.value].body {
            Body::Scalar { text, meaning } => (*meaning != Meaning::Null).then_some(text),
            Body::List(_) | Body::Map(_) => None,
        }
    }

    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        matches!(&self.nodes[id].body, Body::Scalar { meaning: Meaning::Null, .. })
    }

    /// The node as JSON.
    pub(crate) fn json(&self, id: NodeId) -> Value {
        match &self.nodes[id].body {
            Body::Scalar { text, meaning } => match meaning {
                Meaning::Null => Value::Null,
                Meaning::Bool(b) => Value::Bool(*b),
                Meaning::Signed(n) => Value::Number((*n).into()),
                Meaning::Unsigned(n) => Value::Number((*n).into()),
                Meaning::Float(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
                Meaning::Text => Value::String(text.clone()),
            },
            Body::List(items) => Value::Array(items.iter().map(|i| self.json(*i)).collect()),
            Body::Map(entries) => Value::Object(
                entries
                    .iter()
                    .filter(|e| e.repeats.is_none())
                    .map(|e| (e.key.clone(), self.json(e.value)))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The place of the field at `path` below `root`, or of its nearest existing ancestor.
    ///
    /// A map or list is placed at its key, anything else at its value.
    pub(crate) fn locate(&self, root: NodeId, path: &str) -> Position {
        let mut node = root;
        let mut at = self.nodes[root].at;
        for step in steps(path) {
            let (next, key_at) = match (&self.nodes[node].body, step) {
                (Body::Map(_), step) => match self.entry(node, step.trim_matches(['[', ']'])) {
                    Some(entry) => (entry.value, entry.at),
                    None => return at,
                },
                (Body::List(items), step) => {
                    let index = step.trim_matches(['[', ']']).parse::<usize>().ok();
                    match index.and_then(|i| items.get(i)) {
                        Some(item) => (*item, self.nodes[*item].at),
                        None => return at,
                    }
                }
                (Body::Scalar { .. }, _) => return at,
            };
            node = next;
            at = match self.nodes[node].body {
                Body::Scalar { .. } if !self.is_null(node) => self.nodes[node].at,
                Body::Scalar { .. } | Body::List(_) | Body::Map(_) => key_at,
            };
        }
        at
    }

    /// A tree of one value; places are all the first.
    ///
    /// # Errors
    /// The finding that it is too deep or too large.
    pub(crate) fn of_json(value: &Value) -> Result<(Self, NodeId), Finding> {
        let mut tree = Self::default();
        let root = tree.push_json(value, 0)?;
        if tree.nodes[root].weight > NODES_MAX {
            return Err(Finding::new(START, "", format!("this holds more than {NODES_MAX} values")));
        }
        Ok((tree, root))
    }

    fn push_json(&mut self, value: &Value, above: usize) -> Result<NodeId, Finding> {
        if above >= DEPTH_MAX {
            return Err(Finding::new(START, "", format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let scalar = |text: String, meaning| Body::Scalar { text, meaning };
        let body = match value {
            Value::Null => scalar("null".to_owned(), Meaning::Null),
            Value::Bool(b) => scalar(b.to_string(), Meaning::Bool(*b)),
            Value::Number(n) => {
                let signed = n.as_i64().map(Meaning::Signed);
                let whole = signed.or_else(|| n.as_u64().map(Meaning::Unsigned));
                let float = || Meaning::Float(n.as_f64().unwrap_or_default());
                scalar(n.to_string(), whole.unwrap_or_else(float))
            }
            Value::String(text) => scalar(text.clone(), Meaning::Text),
            Value::Array(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|i| self.push_json(i, above + 1)).collect();
                Body::List(items?)
            }
            Value::Object(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, value) in map {
                    let value = self.push_json(value, above + 1)?;
                    entries.push(Entry { key: key.clone(), at: START, value, repeats: None, plain: false });
                }
                Body::Map(entries)
            }
        };
        Ok(self.push(START, body))
    }

    fn push(&mut self, at: Position, body: Body) -> NodeId {
        let below: Vec<NodeId> = match &body {
            Body::Scalar { .. } => Vec::new(),
            Body::List(items) => items.clone(),
            Body::Map(entries) => entries.iter().map(|e| e.value).collect(),
        };
        let weight = below.iter().fold(1u64, |sum, id| sum.saturating_add(self.nodes[*id].weight));
        let depth = 1 + below.iter().map(|id| self.nodes[*id].depth).max().unwrap_or(0);
        self.nodes.push(Node { at, body, weight, depth });
        self.nodes.len() - 1
    }
}

/// Cuts `spec.rules[0].to` into `spec`, `rules`, `[0]`, `to`; a key with dots is written `labels[a.b/c]`.
fn steps(path: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let end = if rest.starts_with('[') {
            rest.find(']').map_or(rest.len(), |i| i + 1)
        } else {
            rest.find(['.', '[']).unwrap_or(rest.len())
        };
        if end > 0 {
            out.push(&rest[..end]);
        }
        rest = &rest[end..];
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    out
}

/// Reads every document of a file; what follows a syntax error cannot be read.
pub(crate) fn read(text: &str) -> Documents {
    if text.len() > FILE_BYTES_MAX {
        let words =
            format!("the file has {} bytes, more than the {FILE_BYTES_MAX} that are read", text.len());
        return Documents { findings: vec![Finding::new(START, "", words)], ..Documents::default() };
    }
    let mut builder = Builder::default();
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if let Err(finding) = builder.take(event, span) {
                    builder.done.findings.push(finding);
                    break;
                }
            }
            Err(error) => {
                let words = format!("not valid YAML: {}", error.info());
                builder.done.findings.push(Finding::new(position(*error.marker()), "", words));
                break;
            }
        }
    }
    builder.done
}

pub(crate) const START: Position = Position { line: 1, column: 1 };

fn position(mark: Marker) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: count(mark.line()).max(1), column: count(mark.col()).saturating_add(1) }
}

#[derive(Default)]
struct Builder {
    done: Documents,
    open: Vec<Open>,
    anchors: BTreeMap<usize, NodeId>,
}

enum Open {
    List { at: Position, anchor: usize, items: Vec<NodeId> },
    Map { at: Position, anchor: usize, map: OpenMap },
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// Where each key stands first.
    first: BTreeMap<String, Position>,
    /// A key whose value has not come yet.
    key: Option<(String, Position, bool)>,
}

impl OpenMap {
    fn add(&mut self, key: String, at: Position, plain: bool, value: NodeId) {
        let repeats = self.first.get(&key).copied();
        if repeats.is_none() {
            self.first.insert(key.clone(), at);
        }
        self.entries.push(Entry { key, at, value, repeats, plain });
    }
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        let at = position(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).copied() {
                Some(node) => self.place(node, None),
                None => Err(Finding::new(at, "", "this alias stands inside its own anchor")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let bare = style == ScalarStyle::Plain && tag.is_none();
                let meaning = meaning(&text, style, tag.as_deref(), at)?;
                let node = self.done.tree.push(at, Body::Scalar { text: text.into_owned(), meaning });
                self.anchors.insert(anchor, node);
                self.place(node, Some(bare))
            }
            Event::SequenceStart(anchor, tag) => {
                core_tag(tag.as_deref(), "seq", at)?;
                self.begin(at, Open::List { at, anchor, items: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                core_tag(tag.as_deref(), "map", at)?;
                self.begin(at, Open::Map { at, anchor, map: OpenMap::default() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(&mut self, at: Position, open: Open) -> Result<(), Finding> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Finding::new(at, "", format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Finding> {
        let (at, anchor, body) = match self.open.pop() {
            Some(Open::List { at, anchor, items }) => (at, anchor, Body::List(items)),
            Some(Open::Map { at, anchor, map }) => (at, anchor, Body::Map(self.merged(map)?)),
            None => return Ok(()),
        };
        let node = self.done.tree.push(at, body);
        let Node { weight, depth, .. } = self.done.tree.nodes[node];
        if weight > NODES_MAX || depth > DEPTH_MAX {
            let words =
                format!("with its aliases this holds more than {NODES_MAX} values or {DEPTH_MAX} levels");
            return Err(Finding::new(at, "", words));
        }
        self.anchors.insert(anchor, node);
        self.place(node, None)
    }

    /// Puts a finished node where it belongs; `bare` says that it is a scalar and whether it was a bare one.
    fn place(&mut self, node: NodeId, bare: Option<bool>) -> Result<(), Finding> {
        let at = self.done.tree.nodes[node].at;
        match self.open.last_mut() {
            None => {
                if !self.done.tree.is_null(node) {
                    self.done.roots.push(node);
                }
            }
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, .. }) => match map.key.take() {
                None => {
                    let Body::Scalar { text, .. } = &self.done.tree.nodes[node].body else {
                        return Err(Finding::new(at, "", "a list or map cannot be the name of a field"));
                    };
                    map.key = Some((text.clone(), at, bare.unwrap_or(false)));
                }
                Some((key, at, plain)) => map.add(key, at, plain, node),
            },
        }
        Ok(())
    }

    /// The entries with those of every `<<` added that are not there yet.
    fn merged(&self, map: OpenMap) -> Result<Vec<Entry>, Finding> {
        let OpenMap { entries, first, .. } = map;
        let (merges, mut out): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|e| e.plain && e.key == "<<");
        let mut present: BTreeSet<String> =
            if merges.is_empty() { BTreeSet::new() } else { first.into_keys().collect() };
        for merge in merges {
            let sources = match &self.done.tree.nodes[merge.value].body {
                Body::List(items) => items.clone(),
                Body::Map(_) | Body::Scalar { .. } => vec![merge.value],
            };
            for source in sources {
                let Body::Map(more) = &self.done.tree.nodes[source].body else {
                    return Err(Finding::new(merge.at, "<<", "only maps can be merged into a map"));
                };
                let new = more.iter().filter(|e| e.repeats.is_none());
                out.extend(new.filter(|e| present.insert(e.key.clone())).cloned());
            }
        }
        Ok(out)
    }
}

fn core_tag(tag: Option<&Tag>, expected: &str, at: Position) -> Result<(), Finding> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == expected => Ok(()),
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> Finding {
    Finding::new(at, "", format!("the tag {}{} means nothing in a manifest", tag.handle, tag.suffix))
}

fn meaning(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Meaning, Finding> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { scalar::plain(text) } else { Meaning::Text });
    };
    let found = scalar::plain(text);
    let right = match tag.suffix.as_str() {
        _ if !tag.is_yaml_core_schema() => return Err(unknown_tag(tag, at)),
        "str" => return Ok(Meaning::Text),
        "null" => found == Meaning::Null,
        "bool" => matches!(found, Meaning::Bool(_)),
        "int" => matches!(found, Meaning::Signed(_) | Meaning::Unsigned(_)),
        "float" => matches!(found, Meaning::Float(_) | Meaning::Signed(_)),
        _ => return Err(unknown_tag(tag, at)),
    };
    if right {
        Ok(found)
    } else {
        Err(Finding::new(at, "", format!("\"{text}\" is not of type {}", tag.suffix)))
    }
}
