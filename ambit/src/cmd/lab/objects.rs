//! `ambit lab apply|delete|label|annotate|get`: the objects of a lab.

use std::path::PathBuf;
use std::time::Duration;

use ambit_lab::control::{Request, WaitMillis, ask};
use ambit_lab::store::{Kind, ObjectKey};
use ambit_lab::{LabError, LabName, RunDir, manifests};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::out;

mod columns;

/// Whether and how long to wait.
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Return at once instead of waiting until the change is in force
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl WaitArgs {
    fn millis(&self) -> WaitMillis {
        (!self.no_wait).then(|| u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Manifests to write.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// Manifests: files or folders of them, `-` for standard input
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true)]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Objects to remove.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// Manifests of what to remove: files or folders of them, `-` for standard input
    #[arg(short, long = "filename", value_name = "FILE|DIR", conflicts_with_all = ["kind", "names"])]
    filename: Vec<PathBuf>,
    /// Kind, as in `pod`, `pods` or `Pod`
    #[arg(required_unless_present = "filename", requires = "names")]
    kind: Option<String>,
    /// Names
    #[arg(num_args = 1..)]
    names: Vec<String>,
    /// The objects' namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// No error for an object that does not exist
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Labels or annotations to change.
#[derive(Debug, clap::Args)]
pub(super) struct MarkArgs {
    /// Kind, as in `namespace`, `ns` or `Namespace`
    kind: String,
    /// The object
    object: String,
    /// KEY=VALUE sets, KEY- removes
    #[arg(required = true)]
    changes: Vec<String>,
    /// The object's namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Accepted as kubectl has it; values are always replaced
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What to show.
#[derive(Debug, clap::Args)]
pub(super) struct GetArgs {
    /// Kind, as in `pods`
    kind: String,
    /// One object; all if left out
    object: Option<String>,
    /// The objects' namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    Yaml,
    Name,
}

pub(super) fn apply(lab: &LabName, args: &ApplyArgs) -> Result<i32, LabError> {
    let loaded = manifests::load_into(&RunDir::of(lab), &args.filename)?;
    let keys = loaded.keys();
    ask(lab, &Request::Apply { objects: loaded.objects, wait: args.wait.millis() }, &mut out::say)?;
    for key in keys {
        out::data(&format!("{} applied", short(&key)));
    }
    Ok(out::OK)
}

pub(super) fn delete(lab: &LabName, args: &DeleteArgs) -> Result<i32, LabError> {
    let objects = match &args.kind {
        Some(kind) => {
            let kind = manifests::kind(kind)?;
            args.names.iter().map(|name| ObjectKey::new(kind, Some(&args.namespace), name)).collect()
        }
        None => manifests::load_keys(&args.filename)?,
    };
    let wait = args.wait.millis();
    let request = Request::Delete { objects: objects.clone(), ignore_missing: args.ignore_not_found, wait };
    ask(lab, &request, &mut out::say)?;
    for key in objects {
        out::data(&format!("{} deleted", short(&key)));
    }
    Ok(out::OK)
}

pub(super) fn mark(lab: &LabName, args: &MarkArgs, annotations: bool) -> Result<i32, LabError> {
    let object = ObjectKey::new(manifests::kind(&args.kind)?, Some(&args.namespace), &args.object);
    let changes = args.changes.iter().map(|c| change(c)).collect::<Result<Vec<_>, LabError>>()?;
    let request = Request::Mark { object: object.clone(), annotations, changes, wait: args.wait.millis() };
    ask(lab, &request, &mut out::say)?;
    out::data(&format!("{} {}", short(&object), if annotations { "annotated" } else { "labelled" }));
    Ok(out::OK)
}

/// `KEY=VALUE` or `KEY-`.
fn change(text: &str) -> Result<(String, Option<String>), LabError> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err(LabError::Usage(format!("{text:?} is neither KEY=VALUE nor KEY-"))),
    }
}

fn short(key: &ObjectKey) -> String {
    let kind = key.kind.as_str().to_ascii_lowercase();
    match &key.namespace {
        Some(namespace) => format!("{kind} {namespace}/{}", key.name),
        None => format!("{kind} {}", key.name),
    }
}

/// What to say when nothing was found; names the namespaces where it would have been.
fn nothing(lab: &LabName, args: &GetArgs, kind: Kind, all: &[Value]) -> String {
    let text =
        |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let what = match &args.object {
        Some(name) => format!("no {kind} {name}"),
        None => format!("no {kind}"),
    };
    if !kind.namespaced() || args.all_namespaces {
        return format!("{what} in lab {lab}");
    }
    let of_name = |object: &&Value| {
        args.object.as_ref().is_none_or(|name| text(object, "/metadata/name").as_ref() == Some(name))
    };
    let mut elsewhere: Vec<String> =
        all.iter().filter(of_name).filter_map(|o| text(o, "/metadata/namespace")).collect();
    elsewhere.sort();
    elsewhere.dedup();
    let hint = match elsewhere.as_slice() {
        [] => String::new(),
        [one] => format!("; there is in {one}: add -n {one}"),
        several => format!("; there is in {}: add -n NAMESPACE or -A", several.join(", ")),
    };
    format!("{what} in namespace {}{hint}", args.namespace)
}

pub(super) fn show(lab: &LabName, args: &GetArgs) -> Result<i32, LabError> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(LabError::NotUp(lab.clone()));
    }
    let kind = manifests::kind(&args.kind)?;
    let namespace = (kind.namespaced() && !args.all_namespaces).then_some(args.namespace.as_str());
    let all = manifests::stored(&run, kind)?;
    let wanted = |object: &&Value| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        namespace.is_none_or(|n| text("/metadata/namespace") == Some(n))
            && args.object.as_deref().is_none_or(|n| text("/metadata/name") == Some(n))
    };
    let found: Vec<&Value> = all.iter().filter(wanted).collect();
    if found.is_empty() {
        let told = nothing(lab, args, kind, &all);
        if args.object.is_some() {
            return Err(LabError::Refused { exit_code: out::FAILED, message: told });
        }
        if matches!(args.output, Form::Table) {
            out::say(&told);
            return Ok(out::OK);
        }
    }
    let one = args.object.is_some() && found.len() == 1;
    let value =
        || if one { found[0].clone() } else { json!({"apiVersion": "v1", "kind": "List", "items": found}) };
    match args.output {
        Form::Table => out::data(&columns::table(kind.as_str(), &found, args.all_namespaces)),
        Form::Json => out::data(&format!("{:#}", value())),
        Form::Yaml => out::data(&manifests::to_yaml(&value())),
        Form::Name => {
            for object in &found {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                out::data(&format!("{}/{name}", kind.as_str().to_ascii_lowercase()));
            }
        }
    }
    Ok(out::OK)
}
