//! Variables in commands and environments.

use super::*;

#[test]
fn variables_expand_as_in_the_kubelet() {
    let env = [
        ("A".to_owned(), "1".to_owned()),
        ("B".to_owned(), "2".to_owned()),
        ("A".to_owned(), "3".to_owned()),
    ];
    let rows = [
        ("plain", "plain"),
        ("$(A)-$(B)", "3-2"),
        ("$$(A)", "$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("$$$(A)", "$3"),
        ("cost: $", "cost: $"),
        ("$()", "$()"),
    ];
    for (text, want) in rows {
        assert_eq!(expand(text, &env), want, "row {text}");
    }
}

#[test]
fn later_variables_use_earlier_ones() {
    let own = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let env = expand_env(&[own("X", "$(P)/x"), own("Y", "$(X)/y"), own("P", "new")], &[own("P", "old")]);
    assert_eq!(env, vec![own("X", "old/x"), own("Y", "old/x/y"), own("P", "new")]);
}
