//! A question that is open with some proxies, as whoever asked holds it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ambit_xds::proto::ambit::observe::v1::{Cancel, to_proxy};
use tokio::sync::mpsc;

use super::{Heard, Hub, Said, lock, message};

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
    /// Those who could not be asked.
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
