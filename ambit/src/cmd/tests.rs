//! The headings of all tables: what people read columns by, and what scripts cut them by.
//!
//! What changes here changes for everybody: no column moves, and a new one comes last or in the wide form.

use clap::CommandFactory as _;
use expect_test::expect;
use serde_json::{Value, json};

use super::lab::parts;
use super::policy::{diff, test};
use super::waypoint::show;
use super::{Cli, breakglass, bundle, ca, edges, flows, get, stat, status, strict, top};
use crate::out;

/// A table of rows, in its normal or its wide form.
type Table = fn(&[Value], bool) -> String;

#[test]
fn no_two_flags_of_a_command_are_in_each_others_way() {
    Cli::command().debug_assert();
}

#[test]
fn tables_have_the_columns_that_people_and_scripts_know() {
    let mut all = [listed(), others()].concat();
    all.sort();
    let shown: Vec<String> =
        all.iter().map(|(command, text)| format!("{command}: {}", headings(text))).collect();
    expect![[r#"
        breakglass list: NAMESPACE | UNTIL | REASON | BY
        breakglass list -o wide: NAMESPACE | UNTIL | REASON | BY | STATE
        ca rotate --watch: STEP | STATE | EVIDENCE
        ca status: ROOT | ROLE | SUBJECT | NOT AFTER
        edges: SRC | DST | SRC_NS | DST_NS | CLIENT_ID | SERVER_ID | SECURED | WHY_NOT
        edges -o wide: SRC | DST | SRC_NS | DST_NS | CLIENT_ID | SERVER_ID | SECURED | WHY_NOT | PORT | PATHS | CONNS | OPEN | DENIED | CODES | LAST_SEEN | ID
        flows: TIMESTAMP | NODE | SOURCE | DESTINATION | PATH | VERDICT | CODE | ID | SUMMARY
        flows -o wide: TIMESTAMP | NODE | SOURCE | DESTINATION | PATH | VERDICT | CODE | ID | SUMMARY | SERVICE | DURATION MS | POLICY | WHOLE ID
        get certificates: CERTIFICATE NAME | TYPE | STATUS | VALID CERT | SERIAL NUMBER | NOT AFTER | NOT BEFORE
        get certificates -o wide: CERTIFICATE NAME | TYPE | STATUS | VALID CERT | SERIAL NUMBER | NOT AFTER | NOT BEFORE | NODE | LAST ERROR
        get connections: WORKLOAD | DIRECTION | LOCAL | REMOTE | REMOTE TARGET | PROTOCOL | ID
        get connections -o wide: WORKLOAD | DIRECTION | LOCAL | REMOTE | REMOTE TARGET | PROTOCOL | ID | NODE | AGE | BYTES SENT | BYTES RECEIVED | SERVICE | WHOLE ID
        get policies: NAMESPACE | POLICY NAME | ACTION | SCOPE
        get policies -o wide: NAMESPACE | POLICY NAME | ACTION | SCOPE | RULES | DRY RUN
        get services: NAMESPACE | SERVICE NAME | SERVICE VIP | WAYPOINT | ENDPOINTS
        get services -o wide: NAMESPACE | SERVICE NAME | SERVICE VIP | WAYPOINT | ENDPOINTS | PORTS | LOAD BALANCER | HOSTNAME
        get workloads: NAMESPACE | POD NAME | ADDRESS | NODE | WAYPOINT | PROTOCOL
        get workloads -o wide: NAMESPACE | POD NAME | ADDRESS | NODE | WAYPOINT | PROTOCOL | STATUS | SERVICE ACCOUNT | POLICIES | SERVICES
        lab status: NODE | ADDRESSES | LINK | PODS | CAPTURED; PROGRAM | STATE | PID | RESTARTS | ADMIN | METRICS; WAYPOINT | POD | NODE | STATE | PID | ADMIN | METRICS; NAMESPACE | POD | NODE | ADDRESSES | PHASE | READY | CAPTURED | RESTARTS
        policy diff: FLOW | BEFORE | AFTER | CONNS | LAST SEEN
        policy diff -o wide: FLOW | BEFORE | AFTER | CONNS | LAST SEEN | ID
        policy test: RESULT | NAME | EXPECTED | GOT
        policy test -o wide: RESULT | NAME | EXPECTED | GOT | NEAREST
        stat: NAMESPACE | NAME | MESHED | SUCCESS | RPS | P50 | P95 | P99 | TCP_CONN | DENIED
        stat -o wide: NAMESPACE | NAME | MESHED | SUCCESS | RPS | P50 | P95 | P99 | TCP_CONN | DENIED | CONN_PER_S | SENT_B_PER_S | RECEIVED_B_PER_S | EDGE
        status: NODE | VERSION | SYNCED | CAPTURED | CERTS | SELFTEST; WAYPOINT | POD | NODE | READY | SYNCED | REVISION | REJECTED; OBJECT | CONDITION | REASON | MESSAGE; REFUSED
        status --budget: NODE | MEMORY MIB | DESCRIPTORS | CONNECTIONS | FLOW RECORDS
        status -o wide: NODE | VERSION | SYNCED | CAPTURED | CERTS | SELFTEST | READY | STATE | REJECTED; WAYPOINT | POD | NODE | READY | SYNCED | REVISION | REJECTED; OBJECT | CONDITION | REASON | MESSAGE; REFUSED
        strict report: WORKLOAD | PLAINTEXT FROM | CONNS | LAST SEEN | WHY NOT MESHED | FIX
        strict report -o wide: WORKLOAD | PLAINTEXT FROM | CONNS | LAST SEEN | WHY NOT MESHED | FIX | ID
        support-bundle -o wide: PATH | BYTES | FILES | SECRETS | REDACTIONS
        top: SOURCE | DESTINATION | METHOD | PATH | COUNT | BEST | WORST | LAST | SUCCESS
        top -o wide: SOURCE | DESTINATION | METHOD | PATH | COUNT | BEST | WORST | LAST | SUCCESS | ID
        waypoint list: NAMESPACE | NAME | REVISION | TRAFFIC TYPE | PROGRAMMED
        waypoint status: NAMESPACE | NAME | STATUS | TYPE | REASON | MESSAGE; WAYPOINT | POD | NODE | READY | SYNCED | REVISION | REJECTED; SERVICE | WAYPOINT
    "#]]
    .assert_eq(&(shown.join("\n") + "\n"));
}

/// Command and table, of those that lay out a list without more; where the wide form adds nothing it is left out.
fn listed() -> Vec<(String, String)> {
    let tables: [(&str, Table); 7] = [
        ("breakglass list", breakglass::table),
        ("edges", edges::table),
        ("policy diff", diff::table),
        ("policy test", test::table),
        ("stat", stat::table),
        ("strict report", strict::table),
        ("support-bundle", bundle::table),
    ];
    let both = |(command, table): (&str, Table)| of_both(command, |wide| table(&[], wide));
    tables.into_iter().flat_map(both).collect()
}

/// The same of the others.
fn others() -> Vec<(String, String)> {
    let of_kinds = |wide: bool| get::headings(wide).into_iter();
    let kinds = std::iter::zip(of_kinds(false), of_kinds(true));
    let got = kinds.flat_map(|((kind, narrow), (_, wide))| {
        of_both(&format!("get {kind}"), |is_wide| if is_wide { wide.clone() } else { narrow.clone() })
    });
    let mut all: Vec<(String, String)> = got.collect();
    all.extend(of_both("flows", |wide| out::table(&flows::heading(wide), &[])));
    all.extend(of_both("status", status::headings));
    all.extend(of_both("top", |wide| top::table(&[], wide)));
    let waypoint = json!({"pods": [{}], "services": ["-"]});
    let single = [
        ("ca status", ca::table(&[])),
        ("ca rotate --watch", ca::steps(&Value::Null)),
        ("lab status", parts::tables(&json!({"waypoints": [{}]}))),
        ("status --budget", status::budget_heading()),
        ("waypoint list", show::list_table(&[])),
        ("waypoint status", show::status_table(&[waypoint])),
    ];
    all.extend(single.map(|(command, text)| (command.to_owned(), text)));
    all
}

/// The normal form, and the wide one if it is another; one that has no heading is left out.
fn of_both(command: &str, table: impl Fn(bool) -> String) -> Vec<(String, String)> {
    let (narrow, wide) = (table(false), table(true));
    let is_other = narrow != wide;
    let mut both = vec![(command.to_owned(), narrow)];
    both.extend(is_other.then(|| (format!("{command} -o wide"), wide)));
    both.retain(|(_, text)| !text.is_empty());
    both
}

/// The first line of each table, its columns apart.
fn headings(tables: &str) -> String {
    let columns = |line: &str| {
        let columns = line.split("   ").map(str::trim).filter(|column| !column.is_empty());
        columns.collect::<Vec<_>>().join(" | ")
    };
    let first = tables.split("\n\n").filter_map(|table| table.lines().next()).map(columns);
    first.collect::<Vec<_>>().join("; ")
}
