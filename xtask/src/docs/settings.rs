//! The reference of settings: every flag and variable of the programs, read from the structs that clap fills.
//!
//! Reads source, not programs, so that the page can be checked before anything is built. It decides nothing: names,
//! defaults and meanings are the ones in the code.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Field, Item, Lit, Meta, Token};

/// Programs, and the files that hold their settings.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("ztunnel", &["ztunnel/src/config.rs", "ztunnel/src/config/workers.rs"]),
    (
        "waypoint",
        &["waypoint/src/config.rs", "waypoint/src/config/bounds.rs", "waypoint/src/config/tokens.rs"],
    ),
    ("istiod-lite", &["istiod-lite/src/config.rs", "istiod-lite/src/config/console.rs"]),
    ("ambit-cni", &["cni/src/config.rs"]),
];

/// The file that names the variables of traces.
const TRACES: &str = "waypoint/src/observe/otel.rs";

/// This file, for findings.
pub(super) const OWN: &str = "xtask/src/docs/settings.rs";

/// Variables of traces and what they mean here; no flag stands for them.
pub(super) const TRACE_SETTINGS: &[(&str, &str)] = &[
    ("OTEL_SDK_DISABLED", "`true`: nothing is exported"),
    ("OTEL_TRACES_EXPORTER", "`otlp` (the default) or `none`"),
    (
        "OTEL_TRACES_SAMPLER",
        "Which traces are recorded: `always_on`, `always_off` or `traceidratio`, with or without `parentbased_` before it; \
         `parentbased_traceidratio` with 0.01 unless said. Without an endpoint only what a caller has decided counts",
    ),
    ("OTEL_TRACES_SAMPLER_ARG", "The share, from 0 to 1"),
    ("OTEL_SERVICE_NAME", "Name of the program in traces; the Gateway's unless said"),
    ("OTEL_RESOURCE_ATTRIBUTES", "What else is said of the program: `a=b,c=d`"),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "The collector, such as `http://collector:4318`; `/v1/traces` is added for `http/protobuf`. Nothing is exported \
         without one",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "The same with its whole path; stands before it"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "`http/protobuf` (the default) or `grpc`"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "The same; stands before it"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Headers of each request: `api-key=secret,tenant=a`"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "The same; stands before it"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "Longest time for one batch, in milliseconds; 10000"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "The same; stands before it"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "A file of PEM roots, which `https` needs"),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "The same; stands before it"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "`none` only"),
    (
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "Spans that may wait; 2048. Those that find no place are dropped and counted",
    ),
    ("OTEL_BSP_SCHEDULE_DELAY", "Longest time a span waits for others, in milliseconds; 5000"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Spans sent at once; 512"),
];

/// The file that holds the settings of a lab.
const LAB: &str = "lab/src/config.rs";

/// One setting.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    flag: String,
    variable: String,
    default: String,
    meaning: String,
}

/// The page.
///
/// # Errors
/// When a file is not where it is looked for, or is no Rust.
pub(super) fn page(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "# Settings\n\n\
         A flag is stronger than an environment variable, and that is stronger than the default.\n\
         `--print-config` of each program shows the values in force and where each comes from.\n\n\
         Generated from the programs' `config` modules by `cargo xtask docs`.\n",
    );
    for (program, files) in PROGRAMS {
        write!(out, "\n## {program}\n\n| flag | variable | default | meaning |\n| --- | --- | --- | --- |\n")
            .expect("writing to a String cannot fail");
        for file in *files {
            for Setting { flag, variable, default, meaning } in settings(&source(root, file)?)? {
                let meaning = super::cell(&meaning);
                writeln!(out, "| `--{flag}` | {variable} | {default} | {meaning} |")
                    .expect("writing to a String cannot fail");
            }
        }
    }
    out.push_str("\n## Traces of a waypoint\n\n| variable | meaning |\n| --- | --- |\n");
    for name in trace_settings(root)? {
        let known = TRACE_SETTINGS.iter().find(|(known, _)| *known == name);
        let meaning = known.map(|(_, told)| super::cell(told)).unwrap_or_default();
        writeln!(out, "| `{name}` | {meaning} |").expect("writing to a String cannot fail");
    }
    out.push_str("\n## ambit lab up --set\n\n| setting | meaning |\n| --- | --- |\n");
    for (key, meaning) in lab_settings(&source(root, LAB)?)? {
        writeln!(out, "| `{key}` | {} |", super::cell(&meaning)).expect("writing to a String cannot fail");
    }
    Ok(out)
}

pub(super) fn source(root: &Path, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("reading {file}"))
}

/// The settings of every struct that clap fills, in their order; hidden ones are left out.
fn settings(source: &str) -> anyhow::Result<Vec<Setting>> {
    let syntax = syn::parse_file(source).context("parsing a config module")?;
    let structs = syntax.items.iter().filter_map(|item| match item {
        Item::Struct(item) => Some(item),
        _ => None,
    });
    Ok(structs.flat_map(|item| item.fields.iter()).filter_map(setting).collect())
}

fn setting(field: &Field) -> Option<Setting> {
    let arguments = arguments(&field.attrs)?;
    let is = |meta: &Meta, name: &str| meta.path().is_ident(name);
    let has = |name: &str| arguments.iter().any(|meta| is(meta, name));
    let text = |name: &str| {
        arguments.iter().find(|meta| is(meta, name)).and_then(|meta| match meta {
            Meta::NameValue(pair) => Some(plain(&pair.value)),
            Meta::Path(_) | Meta::List(_) => None,
        })
    };
    if has("hide") || !has("long") {
        return None;
    }
    let code = |text: String| if text.is_empty() { "empty".to_owned() } else { format!("`{text}`") };
    Some(Setting {
        flag: field.ident.as_ref()?.to_string().replace('_', "-"),
        variable: text("env").map(code).unwrap_or_default(),
        default: text("default_value").or_else(|| text("default_value_t")).map(code).unwrap_or_default(),
        meaning: meaning(&field.attrs),
    })
}

/// What stands in the parentheses of `#[arg(…)]`.
fn arguments(attributes: &[Attribute]) -> Option<Vec<Meta>> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("arg"))?;
    let read = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    Some(read.into_iter().collect())
}

/// The comment of a field, on one line.
fn meaning(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        Meta::NameValue(pair) => Some(plain(&pair.value).trim().to_owned()),
        Meta::Path(_) | Meta::List(_) => None,
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A literal without its quotes, anything else as it is written.
fn plain(value: &Expr) -> String {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text.value(),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_digits().to_owned(),
        Expr::Lit(ExprLit { lit: Lit::Bool(flag), .. }) => flag.value.to_string(),
        // A variant of an enum, as it is written on the command line.
        Expr::Path(path) => {
            path.path.segments.last().map(|s| s.ident.to_string().to_lowercase()).unwrap_or_default()
        }
        other => quote(other),
    }
}

/// The source of an expression with single spaces.
fn quote(expression: &Expr) -> String {
    let Expr::Binary(binary) = expression else { return String::new() };
    // Sizes are written as shifts; the reader wants the number.
    match (plain(&binary.left).parse::<u64>(), plain(&binary.right).parse::<u32>()) {
        (Ok(left), Ok(right)) if matches!(binary.op, syn::BinOp::Shl(_)) => (left << right).to_string(),
        _ => String::new(),
    }
}

/// The variables of traces that are read, in their order.
///
/// # Errors
/// When their file is not where it is looked for, or has no list of them.
pub(super) fn trace_settings(root: &Path) -> anyhow::Result<Vec<String>> {
    names(&source(root, TRACES)?)
}

/// The texts of the list `NAMES`.
fn names(source: &str) -> anyhow::Result<Vec<String>> {
    let syntax = syn::parse_file(source).context("parsing the module of traces")?;
    let found = syntax.items.into_iter().find_map(|item| match item {
        Item::Static(item) if item.ident == "NAMES" => Some(*item.expr),
        _ => None,
    });
    let Some(Expr::Array(names)) = found else { anyhow::bail!("the module of traces has no list NAMES") };
    Ok(names.elems.iter().map(plain).collect())
}

/// The pairs of the lab's `SETTINGS`.
fn lab_settings(source: &str) -> anyhow::Result<Vec<(String, String)>> {
    let syntax = syn::parse_file(source).context("parsing the lab's config module")?;
    let found = syntax.items.into_iter().find_map(|item| match item {
        Item::Const(item) if item.ident == "SETTINGS" => Some(*item.expr),
        _ => None,
    });
    let Some(Expr::Array(pairs)) = found else { anyhow::bail!("the lab has no list SETTINGS") };
    let pair = |expression: &Expr| match expression {
        Expr::Tuple(pair) => Some((plain(pair.elems.first()?), plain(pair.elems.last()?))),
        _ => None,
    };
    Ok(pairs.elems.iter().filter_map(pair).collect())
}

/// Every token of a source file, those in groups too.
pub(super) fn tokens(source: &str) -> Vec<TokenTree> {
    fn flat(stream: TokenStream, into: &mut Vec<TokenTree>) {
        for token in stream {
            into.push(token.clone());
            if let TokenTree::Group(group) = token {
                flat(group.stream(), into);
            }
        }
    }
    let mut all = Vec::new();
    if let Ok(stream) = source.parse::<TokenStream>() {
        flat(stream, &mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_traces_are_read_from_their_list() {
        let read = names(r#"pub static NAMES: [&str; 2] = ["OTEL_A", "OTEL_B"]; static OTHER: u8 = 1;"#);
        assert_eq!(read.unwrap(), ["OTEL_A", "OTEL_B"]);
        assert!(names("static OTHER: u8 = 1;").is_err());
    }

    #[test]
    fn a_setting_is_read_as_clap_would() {
        let source = r#"
            struct Config {
                /// How long
                /// to wait.
                #[arg(long, env = "AMBIT_WAIT", default_value = "5s", value_parser = parse)]
                pub wait_time: Duration,
                /// Bytes.
                #[arg(long, env = "WINDOW", default_value_t = 4 << 20)]
                window: u32,
                /// Mode.
                #[arg(long, value_enum, default_value_t = Mode::Auto)]
                mode: Mode,
                #[arg(long, hide = true)]
                secret: bool,
                #[command(flatten)]
                rest: Rest,
            }"#;
        let row = |flag: &str, variable: &str, default: &str, meaning: &str| Setting {
            flag: flag.to_owned(),
            variable: variable.to_owned(),
            default: default.to_owned(),
            meaning: meaning.to_owned(),
        };
        let want = [
            row("wait-time", "`AMBIT_WAIT`", "`5s`", "How long to wait."),
            row("window", "`WINDOW`", "`4194304`", "Bytes."),
            row("mode", "", "`auto`", "Mode."),
        ];
        assert_eq!(settings(source).unwrap(), want);
    }
}
