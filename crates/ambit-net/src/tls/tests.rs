//! What needs no peer; handshakes over real sockets and hostile certificates are tested in the workspace's tests.

use ambit_runtime::clock;
use rustls::time_provider::TimeProvider as _;

use super::Wall;

#[test]
fn peers_are_judged_by_the_clock_of_the_program() {
    let seconds = || Wall.current_time().expect("there is a clock").as_secs();
    let before = seconds();
    clock::set_test_offset(7200);
    let shifted = seconds() - before;
    clock::set_test_offset(0);
    assert!((7200..7260).contains(&shifted), "{shifted}");
}
