//! Changing the root of trust without a connection noticing: a state machine that is pure, and resumes anywhere.
//!
//! The steps: a new root goes into the trust bundle (adding); every proxy has the bundle (waiting); the new issuer
//! signs (switching); no proxy uses a leaf of the old issuer any more (reissuing); the old root leaves the bundle
//! (dropping). Adding, switching and dropping are one write each, so what is kept is only which wait is under way, and
//! a program that is killed anywhere finds the old state or the new one. Every write makes a new *generation*.
//!
//! # When a proxy has acknowledged a bundle
//! A proxy takes its roots out of the same answer as its leaf, so whoever uses a leaf of generation *g* trusts the
//! bundle of generation *g*. That needs no word of its own on the wire and holds for foreign proxies too. A wait that
//! began with generation *g* is over when, for every identity of every proxy, one of these is true:
//! - an answer of generation *g* or later was sent, and the proxy did not ask again for as long as one that lost the
//!   answer waits at most before it does (`ledger`);
//! - every leaf of an earlier generation has run out, because the longest life of a leaf has passed.
//!
//! The second is true by itself in the end; the first makes it fast. Proxies ask anew when the published bundle
//! changes: it begins with a line that names its generation, the signing root comes first, and a proxy that stays
//! behind is nudged by another such line. A replica that has not heard of a generation yet could hand out leaves of the
//! one before, so replicas that cannot confirm theirs stop signing, and nothing counts until that bound has passed.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// How far the clocks of replicas and proxies may differ, in seconds.
const SKEW: u64 = 60;

/// Which wait is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// None: one issuer, one bundle.
    #[default]
    Idle,
    /// The bundle holds the roots of both issuers, the old one signs: until every proxy has the bundle.
    Waiting,
    /// The bundle holds both, the new one signs: until no proxy uses a leaf of the old one.
    Reissuing,
}

impl Phase {
    /// Its name, as it is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Reissuing => "reissuing",
        }
    }
}

/// What is kept beside the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Which wait is under way.
    pub phase: Phase,
    /// Counts changes of issuers and bundle.
    pub generation: u64,
    /// When this generation began, in seconds since 1970; 0 before any rotation.
    pub since: u64,
    /// How often proxies were nudged in this generation.
    pub nudge: u32,
    /// When the last time, in seconds since 1970.
    pub nudged: u64,
    /// Longest life of a leaf, in seconds, of all that were ever in force at a change.
    pub life: u64,
}

impl State {
    /// The generation that an answer given `now` counts as. Until the lag has passed a proxy may be answered with the
    /// one before by another replica, and later than by this one.
    pub fn counting(&self, now: u64, times: Times) -> u64 {
        let settled = now >= self.since.saturating_add(times.lag);
        if settled { self.generation } else { self.generation.saturating_sub(1) }
    }
}

/// How long things take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// After this long no replica signs with an earlier generation.
    pub lag: u64,
    /// Proxies that stay behind are nudged this often.
    pub nudge: u64,
}

impl Times {
    /// Of several replicas: 30 s, a third of it for clocks that differ, and 10 minutes.
    pub const REPLICAS: Self = Self { lag: 30, nudge: 600 };
    /// Of one process with its keys on disk: nothing lags.
    pub const ALONE: Self = Self { lag: 0, nudge: 600 };

    /// Without a reading of what is kept for so many seconds a replica signs nothing, since a rotation may have gone on
    /// without it: two thirds of the lag, and 20 at most.
    pub fn fresh(self) -> u64 {
        self.part(self.lag * 2 / 3, 20)
    }

    /// Seconds between two readings that nothing asks for: a sixth of the lag, and 5 at most.
    pub fn reading(self) -> u64 {
        self.part(self.lag / 6, 5)
    }

    /// Where nothing lags nothing has to hurry.
    fn part(self, seconds: u64, most: u64) -> u64 {
        if self.lag == 0 { most } else { seconds.clamp(1, most) }
    }
}

/// What a step is decided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Seconds since 1970.
    pub now: u64,
    /// Proxies that may still use a leaf of an earlier generation.
    pub behind: usize,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One rotation at a time.
    #[error("a rotation is under way ({}); wait for its end, or abort it", phase.as_str())]
    UnderWay {
        /// What it waits for.
        phase: Phase,
    },
    /// There is nothing to abort or to resume.
    #[error("no rotation is under way")]
    Idle,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<I> {
    /// Nothing is under way.
    Rest,
    /// The wait goes on.
    Wait,
    /// To be kept instead of what is.
    Keep(Ring<I>),
}

/// The issuers of a mesh, and how far their rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring<I> {
    /// The one that signs.
    pub signing: I,
    /// The other whose root is in the bundle: the next one while waiting, the last one while reissuing.
    pub other: Option<I>,
    /// How far it is.
    pub state: State,
}

impl<I: Clone> Ring<I> {
    /// One issuer, nothing under way.
    pub fn new(signing: I) -> Self {
        Self { signing, other: None, state: State::default() }
    }

    /// Adds `fresh` to the bundle; leaves live `life` seconds at most.
    ///
    /// # Errors
    /// [`Refused::UnderWay`].
    pub fn begin(&self, fresh: I, now: u64, life: u64) -> Result<Self, Refused> {
        let phase = self.state.phase;
        if phase != Phase::Idle {
            return Err(Refused::UnderWay { phase });
        }
        let mut state = self.next(Phase::Waiting, now);
        state.life = state.life.max(life);
        Ok(Self { signing: self.signing.clone(), other: Some(fresh), state })
    }

    /// Goes back to the issuer that was there before. Until the old root is dropped this is as safe as going on: before
    /// the switch no leaf of the new issuer exists; after it everybody trusts both, and leaves are reissued once more.
    ///
    /// # Errors
    /// [`Refused::Idle`].
    pub fn abort(&self, now: u64) -> Result<Self, Refused> {
        match (self.state.phase, &self.other) {
            (Phase::Waiting, _) | (Phase::Reissuing, None) => Ok(self.drop_other(now)),
            (Phase::Reissuing, Some(other)) => Ok(self.swap(other, now)),
            (Phase::Idle, _) => Err(Refused::Idle),
        }
    }

    /// Has proxies that are behind ask anew now, instead of when they are nudged next. A rotation goes on by itself; this
    /// is for people who have just mended what held a proxy up.
    ///
    /// # Errors
    /// [`Refused::Idle`].
    pub fn resume(&self, now: u64) -> Result<Self, Refused> {
        match self.state.phase {
            Phase::Waiting | Phase::Reissuing => Ok(self.nudged(now)),
            Phase::Idle => Err(Refused::Idle),
        }
    }

    /// The next step, if it is due.
    pub fn step(&self, facts: Facts, times: Times) -> Step<I> {
        if self.state.phase == Phase::Idle {
            return Step::Rest;
        }
        let age = facts.now.saturating_sub(self.state.since);
        let outlived = facts.now >= self.outlived_at(times);
        if age >= times.lag && (facts.behind == 0 || outlived) {
            return Step::Keep(match (self.state.phase, &self.other) {
                (Phase::Waiting, Some(other)) => self.swap(other, facts.now),
                (Phase::Idle | Phase::Waiting | Phase::Reissuing, _) => self.drop_other(facts.now),
            });
        }
        let last = self.state.nudged.max(self.state.since + times.lag);
        if facts.now >= last + times.nudge { Step::Keep(self.nudged(facts.now)) } else { Step::Wait }
    }

    /// The same, with one more reason for proxies to ask anew.
    pub fn nudged(&self, now: u64) -> Self {
        let mut state = self.state;
        state.nudge = state.nudge.saturating_add(1);
        state.nudged = now;
        Self { state, ..self.clone() }
    }

    /// The ring of the generation before, as far as its bundle goes: while waiting, only the signing issuer had a root
    /// in it; while reissuing, the same two did, the other way round.
    pub fn before(&self) -> Self {
        let generation = self.state.generation.saturating_sub(1);
        let state = State { generation, nudge: 0, ..self.state };
        match (self.state.phase, &self.other) {
            (Phase::Reissuing, Some(other)) => {
                Self { signing: other.clone(), other: Some(self.signing.clone()), state }
            }
            (Phase::Idle | Phase::Waiting | Phase::Reissuing, _) => {
                Self { signing: self.signing.clone(), other: None, state }
            }
        }
    }

    /// When every leaf of an earlier generation has run out, in seconds since 1970.
    pub fn outlived_at(&self, times: Times) -> u64 {
        self.state.since.saturating_add(times.lag).saturating_add(self.state.life).saturating_add(SKEW)
    }

    fn next(&self, phase: Phase, now: u64) -> State {
        let State { generation, life, .. } = self.state;
        State { phase, generation: generation + 1, since: now, nudge: 0, nudged: 0, life }
    }

    fn swap(&self, other: &I, now: u64) -> Self {
        let state = self.next(Phase::Reissuing, now);
        Self { signing: other.clone(), other: Some(self.signing.clone()), state }
    }

    fn drop_other(&self, now: u64) -> Self {
        Self { signing: self.signing.clone(), other: None, state: self.next(Phase::Idle, now) }
    }
}
