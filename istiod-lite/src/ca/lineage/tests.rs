//! What may follow what: the steps of a rotation, and nothing that came about otherwise.

use ambit_runtime::clock;
use ambit_types::TrustDomain;

use super::{follows, is_believed};
use crate::ca::material::{self, Issuing, Owner};
use crate::ca::rotation::{Phase, Ring, State};

fn made() -> Issuing {
    material::make(&TrustDomain::default(), clock::wall()).unwrap().0
}

fn ring(signing: &Issuing, other: Option<&Issuing>, phase: Phase, generation: u64) -> Ring<Issuing> {
    let state = State { phase, generation, ..State::default() };
    Ring { signing: signing.clone(), other: other.cloned(), state }
}

/// The states of a rotation from one root to another, in order.
fn rotation(old: &Issuing, new: &Issuing) -> [Ring<Issuing>; 4] {
    [
        ring(old, None, Phase::Idle, 0),
        ring(old, Some(new), Phase::Waiting, 1),
        ring(new, Some(old), Phase::Reissuing, 2),
        ring(new, None, Phase::Idle, 3),
    ]
}

fn may(old: &Ring<Issuing>, new: &Ring<Issuing>, sees_each_step: bool) -> bool {
    follows((old, Owner::Us), (new, Owner::Us), sees_each_step).is_ok()
}

#[test]
fn each_step_of_a_rotation_follows_the_one_before() {
    let (old, new) = (made(), made());
    let states = rotation(&old, &new);
    for pair in states.windows(2) {
        assert!(may(&pair[0], &pair[1], true), "{:?} to {:?}", pair[0].state, pair[1].state);
    }
    // Going back, from before and after the switch.
    assert!(may(&states[1], &ring(&old, None, Phase::Idle, 2), true));
    assert!(may(&states[2], &ring(&old, Some(&new), Phase::Reissuing, 3), true));
}

#[test]
fn who_was_away_takes_up_a_later_generation_and_who_was_not_does_not() {
    let (old, new) = (made(), made());
    let states = rotation(&old, &new);
    assert!(may(&states[0], &states[3], false));
    // In the time of one step there is no whole rotation: it is another authority with a higher number.
    assert!(!may(&states[0], &states[3], true));
}

#[test]
fn a_fresh_root_and_a_backup_from_before_a_rotation_follow_nothing() {
    let (old, new) = (made(), made());
    let states = rotation(&old, &new);
    for in_force in &states {
        for sees_each_step in [true, false] {
            let fresh = ring(&made(), None, Phase::Idle, 0);
            assert!(!may(in_force, &fresh, sees_each_step), "{:?}", in_force.state);
        }
    }
    assert!(!may(&states[3], &states[0], false));
    let told = follows((&states[3], Owner::Us), (&states[0], Owner::Us), true).unwrap_err();
    assert!(told.contains("does not come from") && told.contains("delete the Secret"), "{told}");
    // The old root is still believed by everybody, so going back to it cuts nobody off.
    assert!(may(&states[1], &states[0], false));
}

#[test]
fn the_published_roots_decide_what_a_program_may_start_with() {
    let (old, new) = (made(), made());
    let [before, waiting, switched, after] = rotation(&old, &new);
    let both = format!("# Roots of trust, generation 1.0\n{}{}", old.roots, new.roots);
    let rows = [
        (&before, Owner::Us, old.roots.clone(), true),
        (&before, Owner::Us, both.clone(), true),
        (&before, Owner::Us, new.roots.clone(), false),
        (&waiting, Owner::Us, old.roots.clone(), true),
        // The switch is kept before the next bundle is published.
        (&switched, Owner::Us, old.roots.clone(), true),
        (&switched, Owner::Us, both.clone(), true),
        (&after, Owner::Us, both.clone(), true),
        (&after, Owner::Us, old.roots.clone(), false),
        (&switched, Owner::Plugged, old.roots.clone(), false),
        (&switched, Owner::Plugged, both, true),
        (&before, Owner::Us, "-----BEGIN CERTIFICATE-----".to_owned(), true),
    ];
    for (n, (ring, owner, published, want)) in rows.into_iter().enumerate() {
        assert_eq!(is_believed((ring, owner), &published), want, "row {n}: {:?} {owner:?}", ring.state);
    }
}
