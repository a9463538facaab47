//! Questions: how they are asked, and one that is open with some proxies, as whoever asked holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ambit_xds::proto::ambit::observe::v1::{
    Budget, Cancel, Certificates, Connections, Explain, SelfTests, to_proxy,
};
use serde_json::Value;
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::timeout;

use super::{ANSWER_WAIT, ANSWERED_BYTES_MAX, AskError, Heard, Hub, Question, Said, lock, message};
use crate::console::keep;

/// A question that is open; dropping it cancels it.
#[derive(Debug)]
pub(in crate::observe) struct Asking {
    pub(super) hub: Hub,
    pub(super) id: u64,
    pub(super) answers: mpsc::Receiver<Heard>,
    /// Bytes of the answers that wait.
    pub(super) queued: Arc<AtomicUsize>,
    /// Those who have not said their last word.
    pub(super) waiting: BTreeSet<u64>,
    /// Names of those who could not be asked.
    pub(in crate::observe) unasked: Vec<String>,
}

impl Asking {
    /// Names of those who have not said their last word.
    pub(in crate::observe) fn names(&self) -> Vec<String> {
        let proxies = lock(&self.hub.inner.proxies);
        let open = self.waiting.iter().filter_map(|number| proxies.get(number));
        open.map(|proxy| proxy.who.name.clone()).collect()
    }

    /// The next answer; none once everybody has said the last word, which is never while it is followed. May be
    /// dropped.
    pub(in crate::observe) async fn next(&mut self) -> Option<Heard> {
        if self.waiting.is_empty() && !self.is_followed() {
            return None;
        }
        loop {
            let heard = self.answers.recv().await?;
            self.queued.fetch_sub(heard.said.bytes(), Ordering::Relaxed);
            let is_last = matches!(heard.said, Said::Answer(_) | Said::Ended(..) | Said::Left);
            let was_waited_for = is_last && self.waiting.remove(&heard.number);
            // That one leaves who has said everything is nothing to anybody.
            if was_waited_for || !matches!(heard.said, Said::Left) {
                return Some(heard);
            }
        }
    }

    fn is_followed(&self) -> bool {
        lock(&self.hub.inner.asked).get(&self.id).is_some_and(|asked| asked.follow.is_some())
    }
}

/// How answers are read.
#[derive(Debug)]
enum Reading {
    Whole,
    /// No more than is shown of certificates: of one identity, or all.
    Certificates(Option<String>),
}

impl Reading {
    fn read(&self, json: &[u8]) -> Result<Value, AskError> {
        let read = match self {
            Self::Whole => serde_json::from_slice(json).ok(),
            Self::Certificates(identity) => keep(json, identity.as_deref()),
        };
        read.ok_or(AskError::Garbled)
    }
}

impl Question {
    fn reading(&self) -> Reading {
        match self {
            Self::Certificates { identity } => Reading::Certificates(identity.clone()),
            Self::Connections { .. } | Self::Explain(_) | Self::SelfTests | Self::Budget => Reading::Whole,
        }
    }

    /// Whether only ztunnels know the answer.
    fn is_of_nodes(&self) -> bool {
        match self {
            Self::Connections { .. } | Self::SelfTests | Self::Budget => true,
            Self::Explain(_) | Self::Certificates { .. } => false,
        }
    }

    fn content(self) -> to_proxy::Content {
        match self {
            Self::Connections { most } => to_proxy::Content::Connections(Connections { most }),
            Self::Explain(question) => to_proxy::Content::Explain(Explain { question }),
            Self::SelfTests => to_proxy::Content::SelfTests(SelfTests {}),
            Self::Budget => to_proxy::Content::Budget(Budget {}),
            Self::Certificates { identity } => {
                to_proxy::Content::Certificates(Certificates { identity: identity.unwrap_or_default() })
            }
        }
    }
}

impl Hub {
    /// Asks the proxy that is named, or every one, and waits for the answers: by name, with why there is none. None if
    /// too many questions are open, or others have long been asking everybody for certificates.
    pub async fn ask(
        &self,
        question: Question,
        named: Option<&str>,
    ) -> Option<BTreeMap<String, Result<Value, AskError>>> {
        let (is_of_nodes, reading) = (question.is_of_nodes(), question.reading());
        let _turn = match (&reading, named) {
            (Reading::Certificates(_), None) => Some(self.turn().await?),
            (Reading::Certificates(_) | Reading::Whole, _) => None,
        };
        let mut asking = self.open(&question.content(), None, |who| {
            named.is_none_or(|named| who.name == named) && !(is_of_nodes && who.gateway.is_some())
        })?;
        let mut answers = BTreeMap::new();
        let busy = std::mem::take(&mut asking.unasked).into_iter();
        answers.extend(busy.map(|name| (name, Err(AskError::Busy))));
        answers.extend(asking.names().into_iter().map(|name| (name, Err(AskError::Silent))));
        let deadline = tokio::time::sleep(ANSWER_WAIT);
        tokio::pin!(deadline);
        let mut bytes: usize = 0;
        loop {
            let heard = tokio::select! {
                heard = asking.next() => heard,
                () = &mut deadline => None,
            };
            let Some(Heard { who, said, .. }) = heard else { return Some(answers) };
            bytes = bytes.saturating_add(said.bytes());
            let answer = match said {
                Said::Answer(_) if bytes > ANSWERED_BYTES_MAX => Err(AskError::TooMuch),
                Said::Answer(json) => reading.read(&json),
                Said::Ended(why, _) => Err(AskError::Refused(why.unwrap_or_default())),
                Said::Records(..) | Said::Left => continue,
            };
            answers.insert(who.name.clone(), answer);
        }
    }

    /// The turn to ask everybody for certificates, which is much; none if others do not let go of it in time.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        timeout(ANSWER_WAIT, self.inner.certificates.acquire()).await.ok()?.ok()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let followed = self.is_followed();
        lock(&self.hub.inner.asked).remove(&self.id);
        for (_, proxy) in lock(&self.hub.inner.proxies)
            .iter()
            .filter(|(number, _)| followed || self.waiting.contains(number))
        {
            // One that takes no messages ends with its stream, and the question with it.
            let _ = proxy.send.try_send(Ok(message(self.id, to_proxy::Content::Cancel(Cancel {}))));
        }
    }
}
