//! Nothing a file holds makes us fall over, and what we write is what we read.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::{DEPTH_MAX, parse, to_yaml, tree};

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn aliases_cannot_blow_up() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let before = n - 1;
        text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
    }
    let problems = parse("f", &text).problems;
    assert!(problems[0].to_string().contains("with its aliases"), "{problems:?}");
}

#[test]
fn nesting_has_an_end() {
    for open in ["[", "{a: ", "- "] {
        let problems = parse("f", &open.repeat(DEPTH_MAX + 1)).problems;
        assert!(problems[0].to_string().contains(&format!("deeper than {DEPTH_MAX}")), "{problems:?}");
        assert_eq!(parse("f", &open.repeat(100_000)).problems.len(), 1);
    }
}

#[test]
fn an_anchor_cannot_hold_itself() {
    for text in ["a: &a [*a]", "a: &a {b: *a}", "&a *a"] {
        assert_eq!(parse("f", text).problems.len(), 1, "{text}");
    }
}

#[test]
fn a_file_of_many_small_things_is_read_in_time() {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n".to_owned();
    (0..200_000).for_each(|n| text.push_str(&format!("  k{n}: v\n")));
    assert_eq!(parse("f", &text).objects.len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        parse("f", &text);
    }

    #[test]
    fn anything_that_looks_like_yaml_is_read_or_refused(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \t\n~a0.<]|kind: Pod|apiVersion: v1|\n  |---)*") {
        parse("f", &text);
    }

    #[test]
    fn a_damaged_manifest_is_read_or_refused(cut in 0..SHOP.len(), length in 0..80usize, put in "[-:,\\[\\]{}&*!|'\" \n~0a]{0,6}") {
        let end = (cut + length).min(SHOP.len());
        let text = format!("{}{put}{}", &SHOP[..cut], &SHOP[end..]);
        let parsed = parse("f", &text);
        for problem in &parsed.problems {
            prop_assert!(problem.location.line as usize <= text.lines().count() + 1, "{problem}");
        }
        for object in &parsed.objects {
            object.at("spec.rules[0].from[1].source.principals[3]");
        }
    }

    #[test]
    fn what_is_written_is_read_back(value in json()) {
        let text = to_yaml(&value);
        let documents = tree::read(&text);
        prop_assert!(documents.findings.is_empty(), "{:?}\n{text}", documents.findings);
        let read = documents.roots.first().map_or(Value::Null, |root| documents.tree.json(*root));
        prop_assert_eq!(read, value, "{}", text);
    }
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "\\PC{0,12}",
        "[yYnNoOfFeEsStTrRuU0-9x.:~ _+-]{0,6}",
        "[ \na-c#:>|\"'-]{0,120}",
        Just("0644".to_owned()),
        Just("\t\u{85}\u{2028}\u{0}\r\n".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e15..1e15f64).prop_map(Value::from),
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}
