//! Every code is explained, every explanation is the one that is printed, and every command in it exists.

use clap::CommandFactory as _;
use serde_json::json;

use super::*;

/// What the rules for Prometheus link to.
const ALERTS: &str = include_str!("../../../../docs/runbooks/alerts.md");

/// Whether the command line takes a command as a text names it.
#[track_caller]
fn check_commands(place: &str, text: &str) {
    let quoted = text.split('`').skip(1).step_by(2);
    for command in quoted.filter(|text| text.starts_with("ambit ")) {
        let words = command.split(' ').map(|word| if word == "CODE" { "AMB2104" } else { word });
        let words: Vec<&str> = words.collect();
        let parsed = crate::cmd::Cli::command().try_get_matches_from(&words);
        assert!(parsed.is_ok(), "{place}: {command}: {}", parsed.unwrap_err());
        // Such a filter is of requests; how a connection was carried is `--via`.
        let mut paths = words.windows(2).filter(|pair| pair[0] == "--path");
        assert!(paths.all(|pair| pair[1].starts_with('/')), "{place}: {command}: this path is no request's");
    }
}

#[test]
fn every_command_that_a_hint_or_a_page_names_exists() {
    for reason in Reason::ALL {
        check_commands(reason.code(), reason.entry().try_next);
    }
    for (code, page) in RUNBOOKS {
        // The message stands in a block of its own, whose marks are of three.
        let prose: String = page.split("```").step_by(2).collect();
        check_commands(code, &prose);
    }
    check_commands("alerts.md", ALERTS);
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let wrong = ["get pods", "breakglass", "explain", "policy diff", "flows --path plaintext"];
    for command in wrong {
        let check = || check_commands("here", &format!("see `ambit {command}`"));
        assert!(std::panic::catch_unwind(check).is_err(), "{command}");
    }
}

/// Who is paged reads this page: each section says what to do, and names a command or what else to look at.
#[test]
fn every_alert_says_what_to_do() {
    let sections: Vec<&str> = ALERTS.split("\n## ").skip(1).collect();
    assert!(sections.len() > 20, "{sections:?}");
    for section in sections {
        assert!(section.contains("\nWhat to do: "), "{section}");
    }
}

#[test]
fn every_code_has_its_page_and_no_page_is_without_code() {
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let pages: Vec<&str> = RUNBOOKS.iter().map(|(code, _)| *code).collect();
    assert_eq!(pages, codes);
}

/// A record of each code that connections get is in `samples.json`; the message of the others is that of the code.
/// When a message is meant to change, the page changes with it.
#[test]
fn every_page_shows_the_message_as_it_is_printed() {
    let samples: Value = serde_json::from_str(include_str!("samples.json")).unwrap();
    for (reason, (code, page)) in std::iter::zip(Reason::ALL, RUNBOOKS) {
        let message = match &samples[code] {
            Value::Null => facts(reason.entry()),
            record => explain(record, &LabName::default()),
        };
        let shown = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(shown, Some(&*message), "docs/runbooks/{code}.md; the message is now:\n{message}");
        for part in ["  try  ", "  read  "] {
            assert!(message.contains(part), "{code} has no {part:?}");
        }
    }
}

#[test]
fn a_codes_page_is_printed_below_what_it_is() {
    let printed = page(Reason::PolicyDenied);
    assert!(printed.starts_with("AMB2104 policy-denied\n  what "), "{printed}");
    assert!(printed.contains("## Mend"), "{printed}");
    assert!(!printed.contains("# AMB2104"), "{printed}");
}

#[test]
fn hints_name_the_lab_they_are_about() {
    let shop = "shop".parse().unwrap();
    let hint = "allow it: `ambit get policies -o yaml`, or `spec.rules`";
    assert_eq!(for_lab(hint, &LabName::default()), hint);
    let want = "allow it: `ambit get policies -o yaml --name shop`, or `spec.rules`";
    assert_eq!(for_lab(hint, &shop), want);
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_is_one() {
    let record = |id: &str, verdict: &str| json!({"conn_id": id, "verdict": verdict});
    let known = Known {
        ended: vec![
            record("aabbcc01", "denied"),
            record("aabbcc01", "allowed"),
            record("aabbcc02", "allowed"),
        ],
        open: vec![record("ddeeff01", "")],
    };
    assert!(matches!(found(&known, "aabbcc01"), Ok(Found::Ended(r)) if is_refused(r)));
    assert!(matches!(found(&known, "ddeeff"), Ok(Found::Open(_))));
    assert_eq!(found(&known, "aabbcc").unwrap_err().code, out::BAD_DATA);
    assert_eq!(found(&known, "012345").unwrap_err().code, out::FAILED);
}

#[test]
fn an_edge_is_explained_by_what_ended_else_by_what_is_open() {
    let record = |id: &str, verdict: &str| {
        json!({
            "conn_id": id, "verdict": verdict, "hbone_addr": "10.0.0.2:80",
            "src": {"namespace": "shop", "workload": "web"}, "dst": {"namespace": "shop", "workload": "db"},
        })
    };
    let mut known =
        Known { ended: vec![record("a", "denied"), record("b", "allowed")], open: vec![record("c", "")] };
    let id = "shop/web>shop/db:80";
    let edge = Edge::parse(id).unwrap();
    assert!(matches!(of_edge(&known, &edge, id), Ok(Found::Ended(r)) if r["conn_id"] == "a"));
    known.ended.clear();
    assert!(matches!(of_edge(&known, &edge, id), Ok(Found::Open(r)) if r["conn_id"] == "c"));
    known.open.clear();
    assert_eq!(of_edge(&known, &edge, id).unwrap_err().code, out::FAILED);
}

#[test]
fn an_answer_as_an_object_says_the_same_as_in_words() {
    let lab = LabName::default();
    let of_code = item(Some(Reason::PolicyDenied), About::Code, page(Reason::PolicyDenied), &lab);
    assert_eq!((&of_code["code"], &of_code["name"]), (&json!("AMB2104"), &json!("policy-denied")));
    assert_eq!((&of_code["record"], name(&of_code)), (&Value::Null, "reason/AMB2104".to_owned()));
    let record = json!({"conn_id": "aabbcc01", "verdict": "denied", "code": "AMB2104"});
    let of_record = item(None, About::Record(&record), explain(&record, &lab), &lab);
    assert_eq!((&of_record["record"], name(&of_record)), (&record, "flow/aabbcc01".to_owned()));
    assert!(text(&of_record, "text").starts_with("AMB2104 policy-denied"), "{of_record}");
}

#[test]
fn a_cluster_is_asked_for_what_is_meant() {
    let asked = |what: &str, node: Option<&str>| {
        let query = query(what, Edge::parse(what).as_ref(), node);
        query.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    };
    assert_eq!(asked("last", None), "verdict=denied");
    assert_eq!(asked("0123abcd", Some("n1")), "id=0123abcd*&node=n1");
    assert_eq!(asked("shop/web>data/db:5432", None), "from-namespace=shop&to-namespace=data");
    assert_eq!(asked("outside>db.shop.svc:80", Some("n1")), "node=n1", "an edge is no id of a connection");
}
