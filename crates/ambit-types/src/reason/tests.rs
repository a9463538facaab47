//! The list is sound: unique, ascending, readable back.

use super::{Kind, Reason};

#[test]
fn codes_and_names_are_unique_and_ascending() {
    let numbers: Vec<u16> = Reason::ALL.iter().map(|r| r.entry().number).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(numbers, sorted);
    let mut names: Vec<&str> = Reason::ALL.iter().map(|r| r.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_code_is_read_back_by_code_and_name() {
    for reason in Reason::ALL {
        assert_eq!(reason.code().parse(), Ok(*reason));
        assert_eq!(reason.code().to_lowercase().parse(), Ok(*reason));
        assert_eq!(reason.name().parse(), Ok(*reason));
        assert_eq!(reason.code().len(), 7, "{reason}");
    }
    assert!("AMB9999".parse::<Reason>().is_err());
}

#[test]
fn informing_codes_carry_no_failure_flag_unless_denied() {
    for reason in Reason::ALL {
        let entry = reason.entry();
        if entry.kind == Kind::Info {
            assert_eq!(entry.flag, "-", "{reason}");
        }
    }
}
