//! kubectl's JSONPath templates, as far as they pick fields: `{.items[*].name}`, `{range .items[*]}…{end}`. Pure.
//!
//! Understands names, `['quoted names']`, indexes (negative ones from the end), `*`, filters that compare one field
//! with a text (`[?(@.a=="b")]`, also `!=`), `range` and quoted texts with escapes. No recursion (`..`), no slices.

use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::Value;

/// A template that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Self>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    Filter { path: Vec<Self>, equal: bool, text: String },
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "jsonpath {text:?}: {why}; a template looks like {{.items[*].name}} or {{range .items[*]}}{{.name}}{{\"\\n\"}}{{end}}"
            )
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        // As kubectl: a path alone needs no braces.
        let whole = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut open: Vec<(Vec<Step>, Vec<Piece>)> = Vec::new();
        let mut pieces = Vec::new();
        for block in blocks(&whole).map_err(|why| wrong(&why))? {
            match block {
                Block::Text(text) => pieces.push(Piece::Text(text)),
                Block::Path(path) => pieces.push(Piece::Path(path)),
                Block::Range(path) => open.push((path, std::mem::take(&mut pieces))),
                Block::End => {
                    let (path, outer) = open.pop().ok_or_else(|| wrong("{end} without {range}"))?;
                    let inner = std::mem::replace(&mut pieces, outer);
                    pieces.push(Piece::Range(path, inner));
                }
            }
        }
        if open.is_empty() { Ok(Self(pieces)) } else { Err(wrong("{range} without {end}")) }
    }
}

enum Block {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>),
    End,
}

/// Texts and what stands in braces between them.
fn blocks(template: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            blocks.push(Block::Text(before.to_owned()));
        }
        let end = closing(after).ok_or("a brace is not closed")?;
        blocks.push(block(after[..end].trim())?);
        rest = &after[end + 1..];
    }
    if !rest.is_empty() {
        blocks.push(Block::Text(rest.to_owned()));
    }
    Ok(blocks)
}

/// Where the brace ends, not counting those in quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn block(inside: &str) -> Result<Block, String> {
    if inside == "end" {
        return Ok(Block::End);
    }
    if let Some(path) = inside.strip_prefix("range ") {
        return steps(path.trim()).map(Block::Range);
    }
    for quote in ['"', '\''] {
        if let Some(text) = inside.strip_prefix(quote) {
            let text = text.strip_suffix(quote).ok_or("a quoted text is not closed")?;
            return Ok(Block::Text(unescaped(text)));
        }
    }
    steps(inside).map(Block::Path)
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        plain.push(match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut rest = path.strip_prefix(['$', '@']).unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = bracket(after).ok_or("a bracket is not closed")?;
            steps.push(in_brackets(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        let after = rest.strip_prefix('.').unwrap_or(rest);
        let end = after.find(['.', '[']).unwrap_or(after.len());
        match &after[..end] {
            // `{.}` is the value itself.
            "" if after.is_empty() && steps.is_empty() => {}
            "" => return Err("a name is missing".to_owned()),
            "*" => steps.push(Step::Every),
            name => steps.push(Step::Field(name.to_owned())),
        }
        rest = &after[end..];
    }
    Ok(steps)
}

/// Where the bracket ends, not counting those in quotes and inside a filter.
fn bracket(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn in_brackets(inside: &str) -> Result<Step, String> {
    if inside == "*" {
        return Ok(Step::Every);
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let (operator, equal) = if condition.contains("!=") { ("!=", false) } else { ("==", true) };
        let (path, text) = condition.split_once(operator).ok_or("a filter compares with == or !=")?;
        let text = text.trim().trim_matches(['"', '\'']).to_owned();
        return Ok(Step::Filter { path: steps(path.trim())?, equal, text });
    }
    if let Some(name) = inside.strip_prefix(['"', '\'']).and_then(|n| n.strip_suffix(['"', '\''])) {
        return Ok(Step::Field(name.to_owned()));
    }
    inside.parse().map(Step::Index).map_err(|_| format!("[{inside}] is no index, no name in quotes and no *"))
}

impl Template {
    /// The template filled with what it picks from a value; what is not there leaves nothing.
    pub(crate) fn fill(&self, value: &Value) -> String {
        let mut text = String::new();
        fill(&self.0, value, &mut text);
        text
    }
}

fn fill(pieces: &[Piece], value: &Value, into: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => into.push_str(text),
            Piece::Path(path) => {
                let found: Vec<String> = pick(value, path).into_iter().map(plain).collect();
                // Writing to a String cannot fail.
                let _ = write!(into, "{}", found.join(" "));
            }
            Piece::Range(path, inner) => {
                pick(value, path).into_iter().for_each(|item| fill(inner, item, into));
            }
        }
    }
}

/// Every value that a path leads to.
fn pick<'a>(value: &'a Value, path: &[Step]) -> Vec<&'a Value> {
    path.iter().fold(vec![value], |found, step| found.into_iter().flat_map(|v| next(v, step)).collect())
}

fn next<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    let every = || match value {
        Value::Array(all) => all.iter().collect(),
        Value::Object(all) => all.values().collect(),
        _ => Vec::new(),
    };
    match step {
        Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
        Step::Every => every(),
        Step::Index(index) => {
            let all = value.as_array().map_or(&[][..], Vec::as_slice);
            let from_end = usize::try_from(index.unsigned_abs()).ok().and_then(|n| all.len().checked_sub(n));
            let at = if *index < 0 { from_end } else { usize::try_from(*index).ok() };
            at.and_then(|at| all.get(at)).into_iter().collect()
        }
        Step::Filter { path, equal, text } => {
            let holds = |item: &&Value| pick(item, path).into_iter().any(|v| plain(v) == *text) == *equal;
            every().into_iter().filter(holds).collect()
        }
    }
}

/// A text without quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_picks_what_kubectl_would() {
        let value = json!({
            "kind": "List", "a.b": true,
            "items": [{"name": "web", "n": 1, "ips": ["10.0.0.1", "fd00::1"]}, {"name": "db", "n": 2}],
        });
        let rows = [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("{$.kind}", "List"),
            ("{.items[*].name}", "web db"),
            ("{.items[0].ips[-1]}", "fd00::1"),
            ("{.items[1]['name']}", "db"),
            ("{['a.b']}", "true"),
            ("{.items[?(@.name==\"db\")].n}", "2"),
            ("{.items[?(@.name!='db')].n}", "1"),
            ("{range .items[*]}{.name}={.n}{\"\\n\"}{end}", "web=1\ndb=2\n"),
            ("{range .items[*]}{range .ips[*]}<{@}>{end};{end}", "<10.0.0.1><fd00::1>;;"),
            ("kind is {.kind}{'!'}", "kind is List!"),
            ("{.items[0].ips}", "[\"10.0.0.1\",\"fd00::1\"]"),
            ("{.items[7].name}{.nothing.here}", ""),
            ("{\"{}\"}", "{}"),
        ];
        for (template, want) in rows {
            assert_eq!(template.parse::<Template>().unwrap().fill(&value), want, "{template}");
        }
    }

    #[test]
    fn a_broken_template_is_refused_with_an_example() {
        let rows = [
            ("", "empty"),
            ("{.items[", "not closed"),
            ("{.a[x]}", "no index"),
            ("{range .items[*]}{.a}", "{range} without {end}"),
            ("{end}", "{end} without {range}"),
            ("{..a}", "a name is missing"),
            ("{\"a}", "not closed"),
        ];
        for (template, want) in rows {
            let refused = template.parse::<Template>().unwrap_err();
            assert!(refused.contains(want) && refused.contains("{.items[*].name}"), "{template}: {refused}");
        }
    }
}
