//! What an attempt leads to: told once when it begins to fail and once when it goes again.

use std::path::PathBuf;

use super::*;

fn ok() -> Result<Written, StoreError> {
    Ok(Written { number: 1, resources: 0, certificates: 0 })
}

fn full() -> Result<Written, StoreError> {
    Err(StoreError::TooLarge)
}

fn busy() -> Result<Written, StoreError> {
    Err(StoreError::Busy { path: PathBuf::new() })
}

#[test]
fn a_failure_is_told_once_and_so_is_its_end() {
    let mut failing = false;
    let rows = [
        (ok(), Course::Goes),
        (full(), Course::Fails),
        (full(), Course::StillFails),
        (busy(), Course::Later),
        (full(), Course::StillFails),
        (ok(), Course::GoesAgain),
        (ok(), Course::Goes),
        (busy(), Course::Later),
        (ok(), Course::Goes),
    ];
    for (number, (result, want)) in rows.into_iter().enumerate() {
        assert_eq!(Course::after(&result, &mut failing), want, "row {number}");
    }
}

#[test]
fn attempts_are_spaced() {
    for (course, seconds, is_done) in [
        (Course::Goes, 1, true),
        (Course::GoesAgain, 1, true),
        (Course::Later, 1, false),
        (Course::Fails, 10, false),
        (Course::StillFails, 10, false),
    ] {
        assert_eq!(course.pause(), Duration::from_secs(seconds), "row {course:?}");
        assert_eq!(course.is_done(), is_done, "row {course:?}");
    }
}

#[test]
fn what_is_sealed_is_refreshed_well_within_its_age() {
    for (age_max, want) in [(86_400, 3600), (3600, 900), (8, 2), (0, 1)] {
        assert_eq!(refresh_after(Duration::from_secs(age_max)), Duration::from_secs(want), "row {age_max}");
    }
}
