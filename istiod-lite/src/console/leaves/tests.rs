//! Which certificates are shown, in which order, and what a proxy cannot make of them.

use super::*;

const NOW: u64 = 1_000_000;

fn workload(node: &str, name: &str, account: &str) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    workload.node = node.into();
    workload.service_account = account.into();
    workload
}

fn mesh() -> Vec<Workload> {
    vec![
        workload("n1", "web-1", "web"),
        workload("n1", "web-2", "web"),
        workload("n2", "web-3", "web"),
        workload("n2", "db-1", "db"),
        workload("n2", "wp-0", "wp"),
    ]
}

fn identity(account: &str) -> String {
    let all = mesh();
    let own = all.iter().find(|workload| *workload.service_account == *account);
    own.map_or_else(
        || format!("spiffe://cluster.local/ns/shop/sa/{account}"),
        |own| own.identity().to_string(),
    )
}

fn leaf(account: &str, left: Option<i64>) -> Value {
    let not_after = left.map(|left| NOW.saturating_add_signed(left));
    json!({ "identity": identity(account), "serial": "0a1f", "not_before": NOW - 10, "not_after": not_after })
}

fn answers(all: &[(&str, Value)]) -> Answers {
    let kept = |answer: &Value| keep(answer.to_string().as_bytes(), None).unwrap();
    all.iter().map(|(proxy, answer)| ((*proxy).to_owned(), Ok(kept(answer)))).collect()
}

fn told(answers: Answers, wanted: &Wanted, most: usize) -> Leaves {
    let mesh = mesh();
    leaves(mesh.iter(), answers, wanted, (NOW, most))
}

/// Identity's account, proxy and state of each.
fn rows(told: &Leaves) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let row = |item: &Value| {
        let name = text(&item["name"]);
        let account = name.rsplit('/').next().unwrap_or_default();
        format!("{account} {} {}", text(&item["node"]), text(&item["state"]))
    };
    told.items.iter().map(row).collect()
}

#[test]
fn the_soonest_to_end_comes_first_and_what_is_missing_before_it() {
    let n1 = json!([leaf("web", Some(3600))]);
    let n2 = json!([leaf("web", Some(60)), leaf("db", None)]);
    let waypoint = json!([leaf("wp", Some(-5))]);
    let all = answers(&[("n1", n1), ("n2", n2), ("shop/wp-0", waypoint)]);
    let whole = told(all.clone(), &Wanted::default(), 10);
    assert_eq!(
        rows(&whole),
        ["db n2 missing", "wp shop/wp-0 expired", "web n2 valid", "web n1 valid"],
        "{whole:#?}"
    );
    let web = &whole.items[2];
    assert_eq!((&web["serial"], &web["seconds_left"]), (&json!("0a1f"), &json!(60)));
    assert_eq!(web["not_after"], "1970-01-12T13:47:40Z");
    let bounded = told(all.clone(), &Wanted::default(), 2);
    assert_eq!((bounded.items.len(), bounded.left_out), (2, 2));
    let wanted = Wanted { identity: Some(identity("web")), of: None };
    assert_eq!(rows(&told(all, &wanted, 10)), ["web n2 valid", "web n1 valid"], "whatever else is answered");
}

#[test]
fn an_identity_that_is_not_at_home_there_is_counted_and_not_shown() {
    let forged = json!([leaf("db", Some(1)), leaf("root-of-all", Some(1)), leaf("web", Some(2))]);
    let told = told(answers(&[("n1", forged.clone()), ("n9", forged)]), &Wanted::default(), 10);
    assert_eq!((rows(&told), told.misfits), (vec!["web n1 valid".to_owned()], 5));
}

#[test]
fn what_cannot_be_read_or_was_not_told_is_named() {
    for answer in [json!({"colour": "red"}), json!([{"not_after": -1}]), json!("x")] {
        assert_eq!(keep(answer.to_string().as_bytes(), None), None, "{answer}");
    }
    let mut all = Answers::from(
        [("n1", json!({"colour": "red"})), ("n2", json!({"leaves": [{"not_after": -1}]}))]
            .map(|(proxy, answer)| (proxy.to_owned(), Ok(answer))),
    );
    all.insert("n3".to_owned(), Err("no answer within 5s".to_owned()));
    let told = told(all, &Wanted::default(), 10);
    assert!(told.items.is_empty());
    let proxies: Vec<&str> = told.incomplete.iter().filter_map(|words| words.split(':').next()).collect();
    assert_eq!(proxies, ["n1", "n2", "n3"], "{:?}", told.incomplete);
}

#[test]
fn numbers_and_words_of_a_proxy_are_held_within_bounds() {
    let mut strange = leaf("web", Some(5));
    strange["not_after"] = json!(u64::MAX);
    strange["serial"] = json!("<script>");
    strange["error"] = json!(format!("\u{1b}[31m{}\n", "x".repeat(10_000)));
    let told = told(answers(&[("n1", json!([strange]))]), &Wanted::default(), 10);
    let item = &told.items[0];
    assert_eq!(
        (&item["not_after"], &item["serial"], &item["state"]),
        (&Value::Null, &Value::Null, &json!("missing"))
    );
    let problem = item["problem"].as_str().unwrap();
    assert!(problem.len() <= 4 * PROBLEM_MAX && !problem.contains(char::is_control), "{problem:?}");
}

#[test]
fn of_what_a_proxy_tells_the_soonest_to_end_are_kept_and_the_rest_is_counted() {
    let many: Vec<Value> =
        (0..3 * LEAVES_MAX).rev().map(|left| leaf("web", i64::try_from(left).ok())).collect();
    let answer = Value::from(many).to_string();
    let kept = keep(answer.as_bytes(), None).unwrap();
    assert!(kept.to_string().len() < answer.len() / 2);
    let told = told([("n1".to_owned(), Ok(kept))].into(), &Wanted::default(), 10);
    assert_eq!((told.items.len(), told.left_out), (10, 3 * LEAVES_MAX - 10));
    assert_eq!((&told.items[0]["seconds_left"], &told.items[9]["seconds_left"]), (&json!(0), &json!(9)));
    let long = json!([{"identity": "x".repeat(100_000), "serial": "1".repeat(100_000), "error": "e".repeat(100_000)}]);
    let kept = keep(long.to_string().as_bytes(), None).unwrap().to_string();
    assert!(kept.len() < 4096, "{}", kept.len());
    let other = json!([leaf("web", Some(1)), leaf("db", Some(2))]).to_string();
    let db = identity("db");
    let kept = keep(other.as_bytes(), Some(db.as_str())).unwrap();
    assert_eq!(kept["leaves"].as_array().map(Vec::len), Some(1), "of one identity no others are kept");
}

#[test]
fn those_who_do_not_attend_are_named_up_to_a_number() {
    let names = |count: usize| (1..=count).map(|n| format!("n{n}")).collect::<Vec<_>>();
    assert_eq!(absent(&names(0)), None);
    assert_eq!(absent(&names(2)).as_deref(), Some("not told here by n1, n2"));
    assert_eq!(absent(&names(7)).as_deref(), Some("not told here by n1, n2, n3, n4, n5 and 2 more"));
}
