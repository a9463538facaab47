//! The schemas of what the command line prints for programs, and whether a document is as its schema says.
//!
//! Of JSON Schema (draft 2020-12) it knows the keywords that `docs/schemas` uses; any other one is a fault, so that no
//! schema says something that nobody checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use regex::Regex;
use serde_json::{Map, Value};

/// Faults that are told of one document; the rest would say the same.
const FAULTS_MAX: usize = 20;

/// A schema of `docs/schemas`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema(Value);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
}

/// Every kind that has a schema.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn kinds() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("docs/schemas");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
}

/// Demands that a document of a kind is as the schema of that kind says.
///
/// # Panics
/// If it is not, or there is no such schema.
#[track_caller]
pub fn check(kind: &str, document: &Value) {
    let faults = Schema::of(kind).faults(document);
    assert!(faults.is_empty(), "no {kind}:\n  {}\nin {document:#}", faults.join("\n  "));
}

impl Schema {
    /// The schema of a kind.
    ///
    /// # Panics
    /// If there is none, or it is no JSON.
    #[track_caller]
    #[must_use]
    pub fn of(kind: &str) -> Self {
        let path = folder().join(format!("{kind}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::new(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// A schema as it is written.
    #[must_use]
    pub fn new(schema: Value) -> Self {
        Self(schema)
    }

    /// The schema as it is written.
    #[must_use]
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Where and how a document is not as the schema says; empty if it is.
    #[must_use]
    pub fn faults(&self, document: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.judge(&self.0, document, "$", &mut faults);
        faults.truncate(FAULTS_MAX);
        faults
    }

    fn judge(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(keywords) = schema.as_object() else {
            if *schema != Value::Bool(true) {
                faults.push(format!("{at}: nothing may be here"));
            }
            return;
        };
        for (keyword, rule) in keywords {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => {}
                "$ref" => match rule.as_str().and_then(|to| self.0.pointer(to.strip_prefix('#')?)) {
                    Some(schema) => self.judge(schema, value, at, faults),
                    None => faults.push(format!("{at}: {rule} leads nowhere")),
                },
                "anyOf" => self.any_of(rule, value, at, faults),
                "properties" | "additionalProperties" | "propertyNames" | "items" => {
                    self.inside(keyword, keywords, value, at, faults);
                }
                other => faults.extend(fault(other, rule, value).map(|what| format!("{at}: {what}"))),
            }
        }
    }

    fn any_of(&self, rule: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let mut nearest: Option<Vec<String>> = None;
        for schema in rule.as_array().into_iter().flatten() {
            let mut found = Vec::new();
            self.judge(schema, value, at, &mut found);
            if nearest.as_ref().is_none_or(|nearest| found.len() < nearest.len()) {
                nearest = Some(found);
            }
        }
        faults.extend(nearest.unwrap_or_else(|| vec![format!("{at}: anyOf of nothing")]));
    }

    /// Keywords about members and items.
    fn inside(
        &self,
        keyword: &str,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let rule = &keywords[keyword];
        if keyword == "items" {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                self.judge(rule, item, &format!("{at}[{index}]"), faults);
            }
            return;
        }
        let is_named = |name: &str| keywords.get("properties").is_some_and(|all| all.get(name).is_some());
        for (name, member) in value.as_object().into_iter().flatten() {
            let below = format!("{at}.{name}");
            match keyword {
                "propertyNames" => self.judge(rule, &Value::from(name.as_str()), &below, faults),
                "properties" if is_named(name) => self.judge(&rule[name.as_str()], member, &below, faults),
                "additionalProperties" if !is_named(name) => self.judge(rule, member, &below, faults),
                _ => {}
            }
        }
    }
}

/// What is wrong by a keyword that looks at a value alone; none if nothing is, or the keyword is about other types.
fn fault(keyword: &str, rule: &Value, value: &Value) -> Option<String> {
    let least =
        |length: Option<usize>| length.is_none_or(|length| rule.as_u64() <= u64::try_from(length).ok());
    let holds = match keyword {
        "type" => types(rule).any(|name| is_of_type(name, value)),
        "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
        "const" => rule == value,
        "required" => {
            let missing = names(rule).find(|name| value.is_object() && value.get(*name).is_none());
            return missing.map(|name| format!("{name} is missing"));
        }
        "pattern" => match rule.as_str().map(Regex::new) {
            Some(Ok(pattern)) => value.as_str().is_none_or(|text| pattern.is_match(text)),
            Some(Err(_)) | None => return Some(format!("{rule} is no pattern")),
        },
        "minimum" => value.as_f64().is_none_or(|number| rule.as_f64().is_some_and(|least| number >= least)),
        "minLength" => least(value.as_str().map(|text| text.chars().count())),
        "minItems" => least(value.as_array().map(Vec::len)),
        "minProperties" => least(value.as_object().map(Map::len)),
        "maxProperties" => {
            value.as_object().is_none_or(|members| rule.as_u64() >= u64::try_from(members.len()).ok())
        }
        unknown => return Some(format!("the keyword {unknown} is not known here")),
    };
    (!holds).then(|| format!("{value} is not of {keyword} {rule}"))
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    rule.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// One type, or several.
fn types(rule: &Value) -> impl Iterator<Item = &str> {
    rule.as_str().into_iter().chain(names(rule))
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}
