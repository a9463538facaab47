//! Output forms that every view shares, and printing a list in them.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::jsonpath::Template;
use crate::out;

/// How something is written.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// A versioned envelope.
    Json,
    /// The same as YAML.
    Yaml,
    /// `KIND/NAME`, one a line.
    Name,
    /// Parts of the envelope, as kubectl picks them.
    JsonPath(Template),
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => template.parse().map(Self::JsonPath),
                None => Err(format!(
                    "{text:?} is no output form; use table, wide, json, yaml, name or jsonpath=TEMPLATE"
                )),
            },
        }
    }
}

/// Help of every `--output`.
pub(crate) const FORMS: &str = "table, wide, json, yaml, name or jsonpath=TEMPLATE";

/// Objects to be shown together.
pub(crate) struct List {
    /// Kind of the envelope.
    pub(crate) kind: &'static str,
    /// The objects.
    pub(crate) items: Vec<Value>,
}

impl List {
    /// Prints the list; `table` lays it out (more columns if asked), `name` names one object.
    pub(crate) fn print(
        self,
        form: &Form,
        table: impl Fn(&[Value], bool) -> String,
        name: impl Fn(&Value) -> String,
    ) {
        self.print_beside(Map::new(), form, table, name);
    }

    /// Prints the list as [`List::print`] does, with further members in the envelope.
    pub(crate) fn print_beside(
        self,
        more: Map<String, Value>,
        form: &Form,
        table: impl Fn(&[Value], bool) -> String,
        name: impl Fn(&Value) -> String,
    ) {
        let Self { kind, items } = self;
        let envelope = |items: Vec<Value>| Self { kind, items }.envelope(more);
        match form {
            Form::Table => out::data(&table(&items, false)),
            Form::Wide => out::data(&table(&items, true)),
            Form::Json => out::data(&envelope(items).to_string()),
            Form::Yaml => out::data(&ambit_lab::manifests::to_yaml(&envelope(items))),
            Form::Name => items.iter().for_each(|item| out::data(&name(item))),
            Form::JsonPath(template) => out::data(&template.fill(&envelope(items))),
        }
    }

    /// The envelope, with further members.
    pub(crate) fn envelope(self, more: Map<String, Value>) -> Value {
        let Self { kind, items } = self;
        let mut all = Map::new();
        all.insert("apiVersion".to_owned(), json!("cli.ambit.internal/v1"));
        all.insert("kind".to_owned(), json!(kind));
        all.insert("items".to_owned(), Value::Array(items));
        all.extend(more);
        Value::Object(all)
    }
}
