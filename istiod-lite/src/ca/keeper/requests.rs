//! What people ask of whoever leads, by an annotation of the Secret, and what they are told there by another.
//!
//! So nobody has to reach a pod, and the API server has said who may ask: whoever may change the Secret could take its
//! keys as well. A step, its answer and the end of the request are one write from the version that was read, so a leader
//! that is killed anywhere has done it and said so, or neither. Who asked is the asker's own word; the proof is in the
//! API server's audit log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ambit_runtime::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{Command, Keeper, Known, Store};
use crate::ca::audit::{Audit, Record};
use crate::ca::material::{Issuing, Owner};
use crate::ca::rotation::{Phase, Ring};
use crate::ca::{service, status};

#[cfg(test)]
mod tests;

/// Longest request.
const REQUEST_BYTES_MAX: usize = 1024;
/// Longest id of a request.
const ID_BYTES_MAX: usize = 64;
/// What was told and is longer than this was not told by us.
const TOLD_BYTES_MAX: usize = 64 << 10;
/// Least time between two writings of news, in seconds.
const NEWS: u64 = 2;
/// While a rotation is under way people are told this often, in seconds, so that they see that somebody leads.
const ALIVE: u64 = 30;
/// Pause after what could not be told.
const AGAIN: Duration = Duration::from_secs(10);

/// What somebody asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Another one for each request: what was answered is not done again.
    id: String,
    /// What is to be done.
    verb: Command,
    /// The generation that whoever asks has seen: nothing is done to another.
    generation: u64,
    /// Who asks, by their own word.
    by: String,
}

impl Request {
    /// Reads a request; says what is wrong without a word of its text.
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > REQUEST_BYTES_MAX {
            return Err(format!("the request is longer than {REQUEST_BYTES_MAX} bytes"));
        }
        let request: Self = serde_json::from_str(text)
            .map_err(|e| format!("the request cannot be read (line {}, column {})", e.line(), e.column()))?;
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let id = request.id.as_bytes();
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.iter().copied().all(is_plain) {
            return Err(format!("the request's id is not 1 to {ID_BYTES_MAX} of a-z, 0-9 and -"));
        }
        if request.by.chars().any(char::is_control) {
            return Err("the request names whoever asks with control characters".to_owned());
        }
        Ok(request)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done,
    Refused,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// The request's; empty if it could not be read.
    id: String,
    /// What was asked; empty if it could not be read.
    verb: String,
    outcome: Outcome,
    /// Why it was refused.
    why: String,
    /// Who asked, by their own word.
    by: String,
    /// Seconds since 1970.
    at: u64,
}

/// A request, judged.
struct Judged {
    answer: Answer,
    /// What is to be kept.
    next: Option<Ring<Issuing>>,
    /// Whether it was answered before.
    is_repeated: bool,
}

/// The leader's side.
#[derive(Debug)]
pub(super) struct Requests {
    audit: Arc<Audit>,
    /// The request that was recorded last, with its outcome: one that cannot be kept is tried again, and recorded once.
    recorded: Option<(String, Outcome)>,
    /// Nothing is told before, after a failure.
    silent_until: Option<Instant>,
}

impl Requests {
    pub(super) fn new(audit: Arc<Audit>) -> Self {
        Self { audit, recorded: None, silent_until: None }
    }

    /// Carries out what is asked, once. Only for whoever leads.
    pub(super) async fn take_up(&mut self, keeper: &Keeper) {
        // On the newest there is: it may have been taken back.
        if keeper.request().is_none() || !keeper.reload().await {
            return;
        }
        let Some(text) = keeper.request() else { return };
        let Judged { answer, next, is_repeated } = judge(keeper, &text);
        if !is_repeated && let Err(error) = self.record(&text, &answer) {
            let what = "a request is not carried out, as it cannot be recorded in the audit log";
            return keeper.tell(Some(format!("{what}: {error}")));
        }
        let told = keeper.told_with(next.as_ref(), &answer);
        let kept = match &next {
            Some(next) => keeper.keep(next, Some(&told)).await,
            None => keeper.note(&told, true).await,
        };
        match kept {
            Ok(()) => info!(
                id = answer.id, verb = answer.verb, by_own_word = answer.by, outcome = ?answer.outcome, why = answer.why,
                "a request about the certificate authority was answered"
            ),
            // Perhaps it was kept all the same; what is read next decides.
            Err(problem) => keeper.tell(Some(problem)),
        }
    }

    /// Tells people how the authority stands, if that is news. Only for whoever leads.
    pub(super) async fn tell(&mut self, keeper: &Keeper) {
        let now = clock::monotonic();
        if self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        let Some(told) = keeper.news() else { return };
        let noted = keeper.note(&told, false).await;
        if let Err(error) = &noted
            && self.silent_until.is_none()
        {
            warn!(error, "how the certificate authority stands cannot be told; it is tried again");
        }
        self.silent_until = noted.is_err().then(|| now + AGAIN);
    }

    fn record(&mut self, text: &str, answer: &Answer) -> io::Result<()> {
        let Answer { id, verb, outcome, why, by, .. } = answer;
        if self.recorded.as_ref().is_some_and(|(last, ended)| last == text && ended == outcome) {
            return Ok(());
        }
        let asked = match verb.as_str() {
            "rotate" => "rotate",
            "abort" => "abort",
            "resume" => "resume",
            _ => "authority",
        };
        let written = match outcome {
            Outcome::Done => "carried-out",
            Outcome::Refused => "refused",
        };
        let detail = format!("request {id:?} at the Secret, the caller is its own word; {why}");
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record =
            Record { outcome: written, caller: by, detail: &detail, ..service::record(asked, now, None) };
        self.audit.record(&record)?;
        self.recorded = Some((text.to_owned(), *outcome));
        Ok(())
    }
}

/// What becomes of a request, given the authority in force.
fn judge(keeper: &Keeper, text: &str) -> Judged {
    let at = clock::unix_seconds();
    let request = match Request::parse(text) {
        Ok(request) => request,
        Err(why) => {
            let (id, verb, by) = (String::new(), String::new(), String::new());
            let answer = Answer { id, verb, outcome: Outcome::Refused, why, by, at };
            return Judged { answer, next: None, is_repeated: false };
        }
    };
    let (generation, last) = {
        let known = keeper.known();
        (known.ring.state.generation, last_answer(&known))
    };
    if let Some(answer) = last.filter(|last| last.id == request.id) {
        return Judged { answer, next: None, is_repeated: true };
    }
    let Request { id, verb, generation: seen, by } = request;
    let decided = if seen == generation {
        keeper.decide(verb)
    } else {
        Err(format!(
            "the authority is of generation {generation} by now, the request was for {seen}; look again"
        ))
    };
    let (outcome, why, next) = match decided {
        Ok(next) => (Outcome::Done, String::new(), Some(next)),
        Err(why) => (Outcome::Refused, why, None),
    };
    let answer = Answer { id, verb: verb.as_str().to_owned(), outcome, why, by, at };
    Judged { answer, next, is_repeated: false }
}

impl Keeper {
    /// What somebody asks at the Secret.
    fn request(&self) -> Option<String> {
        self.known().notes.asked.clone()
    }

    /// What is told together with an answer: how things stand once `next` is kept.
    fn told_with(&self, next: Option<&Ring<Issuing>>, answer: &Answer) -> String {
        let status = match next {
            Some(next) => {
                let known = Known::of(next.clone(), Owner::Us, String::new());
                self.shown(&Known { leads: true, ..known }, answer.at)
            }
            None => self.shown(&self.known(), answer.at),
        };
        written(status, Some(answer), answer.at)
    }

    /// What there is to tell that was not told yet; nothing of an authority that is not ours to write, or not readable.
    fn news(&self) -> Option<String> {
        let known = self.known();
        if matches!(self.store, Store::Disk(_)) || known.owner == Owner::Plugged || !known.is_readable {
            return None;
        }
        let now = clock::unix_seconds();
        let status = self.shown(&known, now);
        let quiet = match told(&known) {
            None => false,
            Some(told) => {
                let age = now.abs_diff(told["told_at"].as_u64().unwrap_or_default());
                let is_idle = known.ring.state.phase == Phase::Idle;
                if is_same(told, &status) { is_idle || age < ALIVE } else { age < NEWS }
            }
        };
        (!quiet).then(|| written(status, last_answer(&known).as_ref(), now))
    }

    /// Writes what is told beside the keys; with `taken`, what was asked goes.
    async fn note(&self, told: &str, taken: bool) -> Result<(), String> {
        let Store::Secret(secrets) = &self.store else { return Ok(()) };
        let version = self.known().version.clone();
        let read = secrets.annotate(&version, told, taken).await.map_err(|e| super::full(&e))?;
        self.adopt(read, true)
    }

    fn shown(&self, known: &Known, now: u64) -> Value {
        status::of(known, self.settings.times, self.settings.trust_domain.as_str(), now)
    }
}

/// What was told last, if it is what we write.
fn told(known: &Known) -> Option<Value> {
    let text = known.notes.told.as_ref().filter(|text| text.len() <= TOLD_BYTES_MAX)?;
    serde_json::from_str::<Value>(text).ok().filter(Value::is_object)
}

/// The answer in what was told last.
fn last_answer(known: &Known) -> Option<Answer> {
    serde_json::from_value(told(known)?["answer"].take()).ok()
}

/// Whether what was told says the same as a status.
fn is_same(mut told: Value, status: &Value) -> bool {
    if let Some(members) = told.as_object_mut() {
        members.remove("answer");
        members.remove("told_at");
    }
    told == *status
}

fn written(mut status: Value, answer: Option<&Answer>, now: u64) -> String {
    status["answer"] = json!(answer);
    status["told_at"] = json!(now);
    status.to_string()
}
