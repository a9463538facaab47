//! The newest file that may be of today comes first; older and stranger ones are named.

use super::*;

const BEYOND: fn(u64) -> Result<(), Refused> = |newest| Err(Refused::Beyond { newest });
const ROLLBACK: fn(u64) -> Result<(), Refused> = |oldest| Err(Refused::Rollback { oldest });

#[test]
fn the_newest_comes_first_and_the_past_is_refused() {
    type Chosen<'a> = &'a [(u64, Result<(), Refused>)];
    let rows: [(&str, &[u64], Option<u64>, Chosen<'_>); 8] = [
        ("nothing", &[], None, &[]),
        ("nothing yet", &[], Some(0), &[]),
        ("three kept", &[4, 6, 5], Some(6), &[(6, Ok(())), (5, Ok(())), (4, Ok(()))]),
        ("a crash before the mark", &[6, 7], Some(6), &[(7, Ok(())), (6, Ok(()))]),
        ("a number not reached", &[6, 9], Some(6), &[(9, BEYOND(6)), (6, Ok(()))]),
        ("an old one brought back", &[3, 6], Some(6), &[(6, Ok(())), (3, ROLLBACK(4))]),
        ("only old ones", &[1, 2], Some(9), &[(2, ROLLBACK(7)), (1, ROLLBACK(7))]),
        ("no mark", &[1], None, &[(1, Err(Refused::Unmarked))]),
    ];
    for (row, found, mark, want) in rows {
        assert_eq!(candidates(found, mark), want, "row {row}");
    }
}

#[test]
fn numbers_at_the_ends_do_not_overflow() {
    assert_eq!(candidates(&[0], Some(0)), [(0, Ok(()))]);
    assert_eq!(candidates(&[u64::MAX], Some(u64::MAX)), [(u64::MAX, Ok(()))]);
    assert_eq!(next(Some(u64::MAX)), u64::MAX);
    assert!(!is_superfluous(&file_name(u64::MAX), u64::MAX));
    assert!(is_superfluous(&file_name(0), u64::MAX));
}

#[test]
fn a_start_looks_at_a_bounded_number_of_files() {
    let many: Vec<u64> = (0..10_000).collect();
    assert_eq!(candidates(&many, Some(9_999)).len(), LOOKED_AT_MAX);
}

#[test]
fn names_are_read_as_they_are_written() {
    assert_eq!(number_of(&file_name(0)), Some(0));
    assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
    for name in [
        "",
        "state-.seal",
        "state-01.seal",
        "state-+1.seal",
        "state-1.seal.tmp",
        "state-18446744073709551616.seal",
        MARK,
    ] {
        assert_eq!(number_of(name), None, "row {name:?}");
    }
}

#[test]
fn three_files_are_kept_and_the_rest_is_cleared_away() {
    let names = [
        "state-1.seal",
        "state-4.seal",
        "state-5.seal",
        "state-6.seal",
        "state-7.seal",
        "state-8.seal",
        "state-8.seal.tmp",
        MARK,
        "state.key",
        "somebody's",
    ];
    let cleared: Vec<&str> = names.into_iter().filter(|name| is_superfluous(name, 7)).collect();
    assert_eq!(cleared, ["state-1.seal", "state-4.seal", "state-8.seal", "state-8.seal.tmp"]);
}
