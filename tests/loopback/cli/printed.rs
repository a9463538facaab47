//! What is printed for programs is as its schema says, and every kind has a schema that somebody checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ambit_tests::outputs::{INDEX, LINES, OF_LAB, Row, TAP, TOP, WITHOUT_MESH};
use ambit_tests::schema::{self, Schema};
use regex::Regex;
use serde_json::{Value, json};

use super::{Files, run};

/// A line of `ambit flows -o json`.
const RECORD: &str = r#"{"time":"2026-01-02T03:04:05.006Z","node":"node1","direction":"inbound","verdict":"denied","code":"AMB2104","reason":"policy-denied","policy":"shop/cart-from-web","rule":0,"nearest":null,"dry_run":[],"path":"hbone","conn_id":"0123456789abcdef0123456789abcdef","src":{"addr":"10.0.0.1:40000","workload":"web","namespace":"shop","identity":"spiffe://cluster.local/ns/shop/sa/web"},"client":null,"dst":{"addr":"10.0.0.2:8080"},"service":null,"hbone_addr":"10.0.0.2:8080","bytes_sent":0,"bytes_recv":0,"duration_ms":3,"error":"no ALLOW policy that applies matched"}"#;

#[test]
fn commands_without_a_mesh_print_what_their_schema_says() {
    let files = Files::new();
    fs::write(files.path("records"), format!("{RECORD}\n{RECORD}\n")).expect("the folder is ours");
    let paths = ["rows.yaml", "manifests.yaml", "findings.yaml", "records"].map(|name| files.path(name));
    let names = ["ROWS", "MANIFESTS", "FINDINGS", "RECORDS"];
    let meant: Vec<(&str, &str)> = std::iter::zip(names, paths.iter().map(String::as_str)).collect();
    for row in WITHOUT_MESH {
        let _ = row.check(&run(&files, &row.command(&meant)));
    }
}

#[test]
fn a_schema_refuses_what_is_not_so() {
    let record: Value = serde_json::from_str(RECORD).expect("JSON");
    schema::check("FlowRecord", &record);
    let of_records = Schema::of("FlowRecord");
    let changes: [(&str, Value); 9] = [
        ("/verdict", json!("maybe")),
        ("/code", json!("2104")),
        ("/code", json!(2104)),
        ("/time", json!("yesterday")),
        ("/bytes_sent", json!(-1)),
        ("/bytes_sent", json!(1.5)),
        ("/dry_run", json!([1])),
        ("/src", json!({"addr": "10.0.0.1:1", "colour": "red"})),
        ("/src/identity", json!("web")),
    ];
    for (field, value) in changes {
        let mut wrong = record.clone();
        *wrong.pointer_mut(field).expect("a field") = value.clone();
        let faults = of_records.faults(&wrong);
        assert!(
            faults.iter().any(|fault| fault.starts_with(&field.replacen('/', "$.", 1).replace('/', "."))),
            "{field} {value}: {faults:?}"
        );
    }
    let mut less = record.clone();
    let _ = less.as_object_mut().expect("an object").remove("conn_id");
    assert_eq!(of_records.faults(&less), ["$: conn_id is missing"]);
    let empty = json!({"apiVersion": "cli.ambit.internal/v2", "kind": "NodeList", "items": {}});
    let faults = Schema::of("NodeList").faults(&empty);
    assert!(
        faults.iter().any(|fault| fault.contains("apiVersion"))
            && faults.iter().any(|fault| fault.contains("items")),
        "{faults:?}"
    );
}

#[test]
fn every_keyword_of_a_schema_is_held() {
    let rows = [
        (json!({"type": ["string", "null"]}), json!(null), json!(1)),
        (json!({"type": "integer"}), json!(2.0), json!(2.5)),
        (json!({"enum": ["a", null]}), json!(null), json!("b")),
        (json!({"const": "a"}), json!("a"), json!("b")),
        (json!({"required": ["a"]}), json!({"a": 1}), json!({})),
        (json!({"pattern": "^a[0-9]$"}), json!("a1"), json!("ba1")),
        (json!({"minimum": 0}), json!(0), json!(-1)),
        (json!({"minLength": 1}), json!("ä"), json!("")),
        (json!({"minItems": 1}), json!([1]), json!([])),
        (json!({"minProperties": 1}), json!({"a": 1}), json!({})),
        (json!({"maxProperties": 1}), json!({"a": 1}), json!({"a": 1, "b": 1})),
        (json!({"items": {"type": "string"}}), json!(["a"]), json!(["a", 1])),
        (json!({"properties": {"a": {"type": "null"}}}), json!({"a": null, "b": 1}), json!({"a": 1})),
        (json!({"properties": {"a": true}, "additionalProperties": false}), json!({"a": 1}), json!({"b": 1})),
        (json!({"additionalProperties": {"type": "null"}}), json!({"a": null}), json!({"a": 1})),
        (json!({"propertyNames": {"pattern": "^a"}}), json!({"ab": 1}), json!({"ba": 1})),
        (json!({"anyOf": [{"type": "null"}, {"const": 1}]}), json!(1), json!(2)),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}), json!(1), json!(2)),
        (json!(true), json!(1), Value::Null),
    ];
    for (written, right, wrong) in rows {
        let schema = Schema::new(written.clone());
        assert_eq!(schema.faults(&right), Vec::<String>::new(), "{written}");
        assert!(written == json!(true) || !schema.faults(&wrong).is_empty(), "{written} takes {wrong}");
    }
    for unsound in [
        json!({"format": "date-time"}),
        json!({"$ref": "#/$defs/none"}),
        json!(false),
        json!({"pattern": "("}),
    ] {
        assert!(!Schema::new(unsound.clone()).faults(&json!("a")).is_empty(), "{unsound}");
    }
}

#[test]
fn schemas_are_strict_where_a_shape_is_ours() {
    for kind in schema::kinds() {
        let schema = Schema::of(&kind);
        let root = schema.as_value();
        assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema", "{kind}");
        assert_eq!(root["title"], kind.as_str());
        let is_line = LINES.contains(&kind.as_str());
        assert!(is_line || root["properties"]["kind"]["const"] == kind.as_str(), "{kind}");
        let mut open = Vec::new();
        find_open(root, "$", &mut open);
        assert_eq!(open, Vec::<String>::new(), "{kind}: objects that may have any member");
    }
}

/// Objects with members of ours that may have others too. Those of Kubernetes may.
fn find_open(schema: &Value, at: &str, open: &mut Vec<String>) {
    let Value::Object(keywords) = schema else {
        return schema.as_array().into_iter().flatten().for_each(|one| find_open(one, at, open));
    };
    let foreign = keywords.get("description").and_then(Value::as_str) == Some("As Kubernetes has it.");
    let has_members =
        keywords.get("properties").is_some_and(Value::is_object) && keywords.contains_key("type");
    if has_members && !keywords.contains_key("additionalProperties") && !foreign {
        open.push(at.to_owned());
    }
    for (keyword, rule) in keywords {
        find_open(rule, &format!("{at}.{keyword}"), open);
    }
}

#[test]
fn every_kind_has_a_schema_and_every_schema_a_row() {
    let all = WITHOUT_MESH.iter().chain(OF_LAB).chain([&TOP, &TAP, &INDEX]);
    let checked: BTreeSet<String> = all.map(|row: &Row| row.kind.to_owned()).collect();
    assert_eq!(checked, schema::kinds(), "left: kinds that a row checks; right: those of docs/schemas");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/output.md");
    let page = fs::read_to_string(page).expect("the page about it");
    let untold: Vec<&String> = checked.iter().filter(|kind| !page.contains(&format!("`{kind}`"))).collect();
    assert_eq!(untold, Vec::<&String>::new(), "kinds that docs/output.md does not name");
    let mut written = BTreeSet::new();
    for folder in ["ambit/src", "lab/src"] {
        find_kinds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut written);
    }
    let own: BTreeSet<String> =
        checked.into_iter().filter(|kind| kind != "List" && !LINES.contains(&kind.as_str())).collect();
    assert_eq!(written, own, "left: kinds in the source; right: kinds that a row checks");
}

/// Kinds of envelopes as the source writes them.
fn find_kinds(folder: &Path, kinds: &mut BTreeSet<String>) {
    let patterns = [
        r#"List \{[ \n]*kind: "([A-Za-z]+)""#,
        r#""apiVersion": "cli\.ambit\.internal/v1",[ \n]*"kind": "([A-Za-z]+)""#,
        r#"const KIND: &str = "([A-Za-z]+)""#,
        r#"Self::[A-Za-z]+ => "([A-Za-z]+List)""#,
    ]
    .map(|pattern| Regex::new(pattern).expect("a pattern"));
    // A kind that is made in another way than these would be overlooked.
    let indirect = Regex::new(r"List \{[ \n]*kind: ([^ \n,]+)").expect("a pattern");
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_kinds(&path, kinds);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a file of the source");
        for pattern in &patterns {
            kinds.extend(pattern.captures_iter(&text).map(|found| found[1].to_owned()));
        }
        for found in indirect.captures_iter(&text) {
            let known = found[1].starts_with('"') || ["KIND", "args.kind.list()"].contains(&&found[1]);
            assert!(known, "{}: teach this test to read {}", path.display(), &found[1]);
        }
    }
}
