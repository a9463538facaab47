//! Who was answered with which generation: the evidence that lets a rotation go on. Pure.
//!
//! An answer can be lost on its way. A proxy that lost one asks again, after a minute at most; so an answer counts once
//! it was followed by silence for longer than that, while the proxy could reach us: it had a discovery stream all the
//! time, and no call was turned away that might have been its. What has counted once counts for good. Kept only while
//! a rotation is under way.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::{Identity, Str};

/// How long a proxy that lost an answer waits at most before we hear it ask again, in seconds: two attempts, each a
/// wait of 66 s after a call of 10 s, because the first may fall into an outage too short for its stream to notice.
pub const CONFIRM: u64 = 165;

/// Identities that each proxy must have a leaf of: a node's proxy by the node's name, a waypoint's replica by
/// `NAMESPACE/POD`.
pub type Required = BTreeMap<Str, BTreeSet<Identity>>;

/// Proxies that have a discovery stream, and since when they always had one, in seconds since 1970.
pub type Present = BTreeMap<Str, u64>;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The newest generation that the proxy has for sure.
    had: u64,
    /// Generation and time of the last answer.
    answered: Option<(u64, u64)>,
    /// When it asked last.
    asked: u64,
}

#[derive(Debug, Default)]
struct Proxy {
    held: BTreeMap<Identity, Entry>,
    /// When a call of its was refused last.
    refused: u64,
}

/// The answers given by this process.
#[derive(Debug, Default)]
pub struct Ledger {
    proxies: BTreeMap<Str, Proxy>,
    /// When a call was turned away last without a look at who called.
    disturbed: u64,
}

impl Ledger {
    /// A proxy asks, at `now` in seconds since 1970.
    pub fn asked(&mut self, proxy: &Str, identity: &Identity, now: u64) {
        let entry = self.entry(proxy, identity);
        entry.asked = now;
        // Whether it had the last answer cannot be told any more.
        entry.answered = None;
    }

    /// It was answered with a certificate and a bundle of this generation.
    pub fn answered(&mut self, proxy: &Str, identity: &Identity, generation: u64, now: u64) {
        self.entry(proxy, identity).answered = Some((generation, now));
    }

    /// A call of a proxy was refused: perhaps it asked again for what it lost.
    pub fn refused(&mut self, proxy: &Str, now: u64) {
        if let Some(proxy) = self.proxies.get_mut(proxy) {
            proxy.refused = now;
        }
    }

    /// Somebody could not be heard: it may have been anybody.
    pub fn disturbed(&mut self, now: u64) {
        self.disturbed = now;
    }

    /// The proxies that have a leaf of `generation` or later for each of their identities; `confirm` is [`CONFIRM`].
    pub fn covered(
        &mut self,
        (required, present): (&Required, &Present),
        generation: u64,
        now: u64,
        confirm: u64,
    ) -> BTreeSet<Str> {
        let disturbed = self.disturbed;
        let mut covered = BTreeSet::new();
        for (name, identities) in required {
            let Some(proxy) = self.proxies.get_mut(name) else { continue };
            if let Some(since) = present.get(name) {
                let quiet = disturbed.max(proxy.refused).max(*since);
                proxy.held.values_mut().for_each(|entry| entry.settle(quiet, now, confirm));
            }
            let has = |one: &Identity| proxy.held.get(one).is_some_and(|entry| entry.had >= generation);
            if identities.iter().all(has) {
                covered.insert(name.clone());
            }
        }
        covered
    }

    /// Forgets who is not required any more and has not asked lately, so that what is kept has the mesh's size.
    pub fn prune(&mut self, required: &Required, now: u64, confirm: u64) {
        self.proxies.retain(|name, proxy| {
            let wanted = required.get(name);
            proxy.held.retain(|identity, entry| {
                wanted.is_some_and(|wanted| wanted.contains(identity))
                    || now.saturating_sub(entry.asked) < confirm
            });
            !proxy.held.is_empty()
        });
    }

    /// Forgets everything: no rotation is under way.
    pub fn clear(&mut self) {
        self.proxies.clear();
    }

    fn entry(&mut self, proxy: &Str, identity: &Identity) -> &mut Entry {
        self.proxies.entry(proxy.clone()).or_default().held.entry(identity.clone()).or_default()
    }
}

impl Entry {
    /// An answer that was followed by silence was received; the proxy could be heard since `quiet`.
    fn settle(&mut self, quiet: u64, now: u64, confirm: u64) {
        if let Some((generation, at)) = self.answered
            && now.saturating_sub(at.max(quiet)) >= confirm
        {
            self.had = self.had.max(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_types::{Identity, Str};

    use super::{Ledger, Present, Required};

    fn identity(account: &str) -> Identity {
        Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap()
    }

    fn required() -> Required {
        [(Str::from("n1"), [identity("a"), identity("b")].into())].into()
    }

    fn is_covered(ledger: &mut Ledger, generation: u64, since: u64, now: u64) -> bool {
        let present = Present::from([(Str::from("n1"), since)]);
        !ledger.covered((&required(), &present), generation, now, 80).is_empty()
    }

    #[test]
    fn a_proxy_is_covered_once_all_its_answers_were_followed_by_silence() {
        let (mut ledger, node) = (Ledger::default(), Str::from("n1"));
        for account in ["a", "b"] {
            ledger.asked(&node, &identity(account), 100);
            ledger.answered(&node, &identity(account), 2, 100);
        }
        assert!(!is_covered(&mut ledger, 2, 0, 179));
        // b lost its answer: it asks again before the time is over, and the wait begins anew.
        ledger.asked(&node, &identity("b"), 160);
        assert!(!is_covered(&mut ledger, 2, 0, 200), "an answer that was asked for again proves nothing");
        ledger.answered(&node, &identity("b"), 2, 160);
        assert!(!is_covered(&mut ledger, 2, 0, 239));
        assert!(is_covered(&mut ledger, 2, 0, 240));
        // A renewal later takes nothing back.
        ledger.asked(&node, &identity("a"), 250);
        assert!(is_covered(&mut ledger, 2, 0, 251));
    }

    #[test]
    fn silence_of_who_cannot_be_heard_proves_nothing() {
        let answer = |ledger: &mut Ledger| {
            for account in ["a", "b"] {
                ledger.answered(&Str::from("n1"), &identity(account), 2, 100);
            }
        };
        let (mut ledger, node) = (Ledger::default(), Str::from("n1"));
        answer(&mut ledger);
        let absent = Present::new();
        assert!(ledger.covered((&required(), &absent), 2, 10_000, 80).is_empty(), "it has no stream");
        assert!(!is_covered(&mut ledger, 2, 150, 229), "it came back at 150");
        assert!(is_covered(&mut ledger, 2, 150, 230));

        let mut ledger = Ledger::default();
        answer(&mut ledger);
        ledger.refused(&node, 150);
        assert!(!is_covered(&mut ledger, 2, 0, 229));
        ledger.disturbed(160);
        assert!(!is_covered(&mut ledger, 2, 0, 239));
        assert!(is_covered(&mut ledger, 2, 0, 240));
    }

    #[test]
    fn an_earlier_generation_or_a_missing_identity_does_not_count() {
        let (mut ledger, node) = (Ledger::default(), Str::from("n1"));
        ledger.answered(&node, &identity("a"), 2, 0);
        assert!(!is_covered(&mut ledger, 2, 0, 1000), "b was never answered");
        ledger.answered(&node, &identity("b"), 1, 0);
        assert!(!is_covered(&mut ledger, 2, 0, 1000), "b has generation 1");
        assert!(is_covered(&mut ledger, 1, 0, 1000));
    }

    #[test]
    fn what_is_kept_has_the_size_of_the_mesh() {
        let mut ledger = Ledger::default();
        for n in 0..100 {
            ledger.asked(&Str::from(format!("gone-{n}")), &identity("a"), 10);
        }
        ledger.asked(&Str::from("n1"), &identity("a"), 10);
        ledger.prune(&required(), 50, 80);
        assert_eq!(ledger.proxies.len(), 101, "who asked lately may become required");
        ledger.prune(&required(), 1000, 80);
        assert_eq!(ledger.proxies.len(), 1);
    }
}
