//! What boards and rules name, and what they look like.

use super::*;

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn names_are_found_in_questions() {
    let text = r#"histogram_quantile(0.9, sum by (le) (rate(ambit_x_seconds_bucket{code="a"}[5m]))) > code:ambit_y:rate5m
        and istio_requests_total offset 5m"#;
    assert_eq!(asked(text), ["ambit_x_seconds_bucket", "istio_requests_total"].into());
}

#[test]
fn parts_of_histograms_are_served_and_strangers_are_not() {
    let served = names(&["ambit_x_seconds", "workload_count"]);
    let rows = [
        ("ambit_x_seconds_bucket", true),
        ("ambit_x_seconds_count", true),
        ("workload_count", true),
        ("ambit_x", false),
        ("ambit_x_seconds_total", false),
    ];
    for (name, want) in rows {
        assert_eq!(is_served(name, &served), want, "{name}");
    }
}

#[test]
fn boards_have_their_own_names_and_every_panel_asks() {
    let boards = boards();
    let paths: BTreeSet<&str> = boards.iter().map(|board| board.path).collect();
    assert_eq!(paths.len(), boards.len());
    for board in &boards {
        assert_eq!(board.path, format!("deploy/dashboards/{}.json", board.uid.trim_start_matches("ambit-")));
        for panel in board.rows.iter().flat_map(|(_, panels)| panels) {
            assert!(!panel.asks.is_empty(), "{} of {}", panel.title, board.title);
            for (query, _) in &panel.asks {
                assert_eq!(
                    query.matches(['(', '{', '[']).count(),
                    query.matches([')', '}', ']']).count(),
                    "{query}"
                );
            }
        }
    }
}

#[test]
fn every_choice_that_a_board_goes_by_can_be_made_on_it() {
    for board in boards() {
        let chosen: BTreeSet<String> = board.variables.iter().map(|v| format!("${}", v.name)).collect();
        for query in board.queries() {
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'));
            let wanted = words.filter(|word| word.starts_with('$') && *word != "$__rate_interval");
            for word in wanted {
                assert!(chosen.contains(word), "{word} in {query} of {}", board.title);
            }
        }
    }
}

#[test]
fn panels_of_a_row_stand_beside_each_other_and_rows_below_each_other() {
    let board = traffic::certificates();
    let json = board.json();
    let places: Vec<(u64, u64)> = json["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["y"].as_u64().unwrap()))
        .collect();
    assert_eq!(places[..7], [(0, 0), (0, 1), (8, 1), (16, 1), (0, 9), (8, 9), (0, 17)]);
}

#[test]
fn an_alert_without_its_section_is_found() {
    let rules =
        "  - alert: A\n    annotations:\n      runbook_url: docs/runbooks/alerts.md#a\n  - alert: B\n";
    let told = untold(rules, "## A\n");
    let lines: Vec<usize> = told.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [4, 4], "{told:?}");
}

#[test]
fn the_operator_gets_the_same_groups() {
    let text = operated("# head\ngroups:\n- name: x\n");
    assert!(text.ends_with("spec:\n  groups:\n  - name: x\n"), "{text}");
}
