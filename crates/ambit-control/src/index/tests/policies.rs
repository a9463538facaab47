//! Which policies a workload names, and what PeerAuthentication makes of plaintext to it.

use std::net::IpAddr;

use ambit_policy::{Facts, PolicySet, decide};

use super::{Index, index, labels, only, pod, put_pod};
use crate::input::*;

#[test]
fn plaintext_is_refused_where_peer_authentication_says_so() {
    use Mode::*;
    // mesh, namespace, workload, ports of the workload -> refused on 80, refused on 81
    let rows: &[(Mode, Mode, Option<Mode>, &[(u16, Mode)], bool, bool)] = &[
        (Unset, Unset, None, &[], false, false),
        (Strict, Unset, None, &[], true, true),
        (Strict, Permissive, None, &[], false, false),
        (Strict, Disable, None, &[], false, false),
        (Unset, Strict, None, &[], true, true),
        (Strict, Unset, Some(Unset), &[], true, true),
        (Strict, Strict, Some(Permissive), &[], false, false),
        (Unset, Unset, Some(Strict), &[], true, true),
        (Unset, Unset, Some(Strict), &[(80, Permissive)], false, true),
        (Unset, Unset, Some(Strict), &[(80, Disable)], false, true),
        (Unset, Unset, Some(Strict), &[(80, Strict)], true, true),
        (Unset, Unset, Some(Strict), &[(80, Unset)], true, true),
        (Unset, Unset, Some(Permissive), &[(80, Strict)], true, false),
        (Unset, Unset, Some(Permissive), &[(80, Strict), (81, Strict)], true, true),
        (Unset, Unset, Some(Disable), &[(81, Strict)], false, true),
        (Strict, Unset, Some(Unset), &[(80, Permissive)], false, true),
        (Strict, Unset, Some(Unset), &[(80, Disable)], false, true),
        (Unset, Strict, Some(Unset), &[(80, Permissive), (81, Disable)], false, false),
        (Unset, Unset, Some(Unset), &[(80, Strict)], true, false),
        (Strict, Permissive, Some(Unset), &[(80, Strict)], true, false),
    ];
    for row in rows {
        let (mesh, namespace, workload, ports, at_80, at_81) = row;
        let level =
            |of: &str, name: &str, created, mode, selector: &[(&str, &str)], ports: &[(u16, Mode)]| {
                Event::Put(Object::PeerAuthentication(PeerAuthentication {
                    name: Name::new(of, name),
                    created,
                    selector: labels(selector),
                    mode,
                    ports: ports.iter().copied().collect(),
                }))
            };
        let mut events = vec![
            put_pod(pod("p")),
            level("istio-system", "mesh", 1, *mesh, &[], &[]),
            level("shop", "namespace", 1, *namespace, &[], &[]),
            // Younger ones, and one with a selector in the root namespace, change nothing.
            level("istio-system", "later", 2, Strict, &[], &[]),
            level("shop", "later", 2, Strict, &[], &[]),
            level("istio-system", "selects", 0, Strict, &[("app", "cart")], &[]),
        ];
        if let Some(mode) = workload {
            events.push(level("shop", "workload", 1, *mode, &[("app", "cart")], ports));
            events.push(level("shop", "younger", 2, Strict, &[("app", "cart")], &[]));
        }
        let index = index(events);
        let refused = |port: u16| !allowed(&index, port);
        assert_eq!((refused(80), refused(81)), (*at_80, *at_81), "{row:?}");
    }
}

/// Whether plaintext to the only workload is allowed.
fn allowed(index: &Index, port: u16) -> bool {
    let workload = only(index);
    let named = workload.policies.iter().map(|key| {
        index.policies().get(key).unwrap_or_else(|| panic!("{key} is named and not there")).clone()
    });
    let local = IpAddr::from([10, 0, 0, 1]);
    decide(&PolicySet::new(named, []), &Facts::new(None, local, local, port)).is_allow()
}

#[test]
fn adding_a_strict_port_never_opens_any_port() {
    let modes = [Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict];
    for mesh in modes {
        for workload in modes {
            for first in modes {
                let of = |ports: &[(u16, Mode)]| {
                    let authentication =
                        |namespace: &str, mode, selector: &[(&str, &str)], ports: &[(u16, Mode)]| {
                            Event::Put(Object::PeerAuthentication(PeerAuthentication {
                                name: Name::new(namespace, "pa"),
                                created: 0,
                                selector: labels(selector),
                                mode,
                                ports: ports.iter().copied().collect(),
                            }))
                        };
                    let index = index([
                        put_pod(pod("p")),
                        authentication("istio-system", mesh, &[], &[]),
                        authentication("shop", workload, &[("app", "cart")], ports),
                    ]);
                    [80, 81, 82].map(|port| allowed(&index, port))
                };
                let (before, after) = (of(&[(80, first)]), of(&[(80, first), (81, Mode::Strict)]));
                let opened = before.iter().zip(after).any(|(before, after)| !before && after);
                assert!(!opened, "{mesh:?} {workload:?} {first:?}: {before:?} {after:?}");
                assert!(!after[1], "{mesh:?} {workload:?} {first:?}");
            }
        }
    }
}

#[test]
fn workloads_name_policies_that_select_them_and_root_ones() {
    let policy = |namespace: &str, name: &str, selector: &[(&str, &str)]| {
        Event::Put(Object::AuthorizationPolicy(Box::new(AuthorizationPolicy {
            name: Name::new(namespace, name),
            generation: 0,
            selector: labels(selector),
            targets: 0,
            action: PolicyAction::Deny,
            rules: Vec::new(),
            dry_run: false,
            until: None,
        })))
    };
    let mut index = index([
        put_pod(pod("p")),
        policy("shop", "selects", &[("app", "cart")]),
        policy("shop", "selects-other", &[("app", "web")]),
        policy("shop", "whole-namespace", &[]),
        policy("istio-system", "selects", &[("app", "cart")]),
        policy("other", "selects", &[("app", "cart")]),
    ]);
    let named = |index: &Index| only(index).policies.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(named(&index), ["istio-system/selects", "shop/selects"]);
    let relabelled = Pod { labels: labels(&[("app", "web")]), ..pod("p") };
    let delta = index.apply([put_pod(relabelled)]);
    assert_eq!(named(&index), ["shop/selects-other"]);
    assert_eq!((delta.workloads.len(), delta.policies.len(), delta.services.len()), (1, 0, 0));
}
