//! What is told of one node, and what of a proxy's words is left out.

use super::*;

fn of(answer: Result<Value, &str>) -> Answers {
    [("n1".to_owned(), answer.map_err(str::to_owned))].into()
}

#[test]
fn connections_are_bounded_in_number_and_each_in_bytes() {
    let long = "x".repeat(CONNECTION_BYTES_MAX);
    let rows = [
        (json!([{"conn_id": "1"}, {"conn_id": "2"}]), 2, 0),
        (json!([{"conn_id": long}, "none", {"conn_id": "2"}]), 1, 2),
        (Value::from(vec![json!({"conn_id": "1"}); CONNECTIONS_MAX + 3]), CONNECTIONS_MAX, 3),
        (json!({"conn_id": "1"}), 0, 0),
    ];
    for (told, want, want_left_out) in rows {
        let (kept, left_out) = connections(told);
        assert_eq!((kept.len(), left_out), (want, want_left_out));
    }
}

#[test]
fn of_what_a_proxy_uses_only_known_numbers_are_passed_on() {
    let told = json!({"resident_bytes": 5, "cpu_seconds": 1.5, "connections_open": "many", "colour": 3});
    assert_eq!(Value::from(used(&told)), json!({"resident_bytes": 5, "cpu_seconds": 1.5}));
}

#[test]
fn a_node_that_answers_in_part_says_which() {
    let row = || json!({"name": "n1", "kind": "node", "attached": true});
    let told = Told {
        connections: of(Ok(json!([{"conn_id": "1"}]))),
        budget: of(Err("no answer within 5s")),
        certificates: of(Ok(json!({"leaves": [], "left_out": 0}))),
    };
    let index = Index::new(ambit_control::Settings::default());
    let one = item(&index, "n1", row(), told, 7);
    assert_eq!(one["incomplete"], json!(["what it uses: no answer within 5s"]));
    assert_eq!((&one["budget"], &one["connections"]), (&Value::Null, &json!([{"conn_id": "1"}])));
    assert_eq!((&one["name"], &one["identities"], &one["at_seconds"]), (&json!("n1"), &json!([]), &json!(7)));
    let silent = item(&index, "n1", json!({"name": "n1", "attached": false}), Told::default(), 7);
    assert!(silent["incomplete"][0].as_str().is_some_and(|words| words.contains("does not attend")));
    assert_eq!(silent["connections"], Value::Null, "nobody said that there is none");
}

#[test]
fn identities_are_those_of_the_node_or_of_the_waypoints_replica() {
    let workload = |name: &str, node: &str, account: &str| {
        let mut one = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
        one.node = node.into();
        one.service_account = account.into();
        one
    };
    let mesh = [workload("a-1", "n1", "a"), workload("a-2", "n1", "a"), workload("wp-0", "n2", "wp")];
    let rows =
        [("n1", vec![("a", 2)]), ("n2", vec![("wp", 1)]), ("shop/wp-0", vec![("wp", 1)]), ("n3", vec![])];
    for (name, want) in rows {
        let (told, more) = identities(mesh.iter().filter(|one| is_at(one, name)));
        let account =
            |one: &Value| one["identity"].as_str().and_then(|id| id.rsplit('/').next()).map(str::to_owned);
        let told: Vec<_> = told.iter().map(|one| (account(one), one["workloads"].as_u64())).collect();
        let want: Vec<_> =
            want.iter().map(|(name, count)| (Some((*name).to_owned()), Some(*count))).collect();
        assert_eq!((told, more), (want, 0), "{name}");
    }
}
