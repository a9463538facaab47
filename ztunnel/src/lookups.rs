//! Discovery on demand: a connection waits until the control plane has said what is behind an address.
//!
//! [`Lookups`] is the side of connections, [`Desk`] that of discovery. An answer that does not come is a refusal and
//! never a guess: an address that is not known may be a pod of the mesh. Where everything is sent unasked, nothing
//! waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_state::Refusal;
use ambit_types::Reason;
use ambit_xds::client::{Answered, Client, LookedUp, Ticket};
use tokio::sync::{mpsc, oneshot};

/// Longest wait for an answer (G48).
const WAIT: Duration = Duration::from_secs(5);
/// Questions that wait for discovery to take them.
const QUEUE: usize = 1024;

/// A question, and who waits for its answer.
#[derive(Debug)]
pub struct Asked {
    key: String,
    answer: oneshot::Sender<()>,
}

/// The side of connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    questions: Option<mpsc::Sender<Asked>>,
    /// Until discovery takes it.
    desk: Arc<Mutex<Option<Desk>>>,
}

impl Lookups {
    /// Asks for what is used.
    pub fn on_demand() -> Self {
        let (questions, asked) = mpsc::channel(QUEUE);
        let desk = Desk { asked: Some(asked), waiting: BTreeMap::new() };
        Self { questions: Some(questions), desk: Arc::new(Mutex::new(Some(desk))) }
    }

    /// The other side; one on which nobody asks if there is none, or it was taken.
    pub fn take_desk(&self) -> Desk {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Waits until the control plane has said what is behind `key`: `NETWORK/IP`, `NAMESPACE/HOSTNAME` or a uid.
    ///
    /// # Errors
    /// AMB6001 if it has not within five seconds, if too many wait already, or if no name is as long as the key.
    pub fn settle(&self, key: String) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let questions = self.questions.clone();
        async move {
            let Some(questions) = questions else { return Ok(()) };
            let (answer, answered) = oneshot::channel();
            let refusal = format!("the control plane has not said what is at {key}");
            let in_queue = questions.try_send(Asked { key, answer }).is_ok();
            match tokio::time::timeout(WAIT, answered).await {
                Ok(Ok(())) if in_queue => Ok(()),
                Ok(_) | Err(_) => Err(Refusal::new(Reason::ControlPlaneUnreachable, refusal)),
            }
        }
    }
}

/// The side of discovery.
#[derive(Debug, Default)]
pub struct Desk {
    asked: Option<mpsc::Receiver<Asked>>,
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
}

impl Desk {
    /// The next question; may be dropped without losing one.
    pub async fn next(&mut self) -> Asked {
        if let Some(asked) = &mut self.asked
            && let Some(asked) = asked.recv().await
        {
            return asked;
        }
        std::future::pending().await
    }

    /// Answers at once what is settled; else it waits for [`Self::answered`]. Whoever cannot wait is told by the
    /// loss of the sender.
    pub fn take(&mut self, asked: Asked, client: &mut Client, now: Instant) {
        match client.look_up(&asked.key, now) {
            LookedUp::Settled => {
                // The connection may be gone.
                let _ = asked.answer.send(());
            }
            LookedUp::Waiting(ticket) => drop(self.waiting.insert(ticket, asked.answer)),
            LookedUp::Full => {}
        }
    }

    /// Answers that are in force.
    pub fn answered(&mut self, answered: &[Answered]) {
        for answer in answered.iter().filter_map(|answered| self.waiting.remove(&answered.ticket)) {
            // The connection may be gone.
            let _ = answer.send(());
        }
    }

    /// Gives up those who waited too long.
    pub fn expire(&mut self, client: &mut Client, now: Instant) {
        for ticket in client.expired_waiters(now) {
            self.waiting.remove(&ticket);
        }
    }

    /// Does `work`, and takes questions meanwhile: what is settled must not wait for a control plane that is away.
    pub async fn meanwhile<T>(&mut self, client: &mut Client, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                asked = self.next() => self.take(asked, client, ambit_runtime::clock::monotonic()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_runtime::clock;
    use ambit_xds::Kind;
    use ambit_xds::client::{Limits, Mode};
    use ambit_xds::node::NodeIdentity;
    use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    use super::*;

    fn client(limits: Limits) -> Client {
        let node = NodeIdentity {
            ip: [192, 0, 2, 1].into(),
            pod_name: "ztunnel".to_owned(),
            namespace: "istio-system".to_owned(),
            node_name: "n1".to_owned(),
            metadata: BTreeMap::new(),
        };
        Client::new(node, Mode::OnDemand, limits)
    }

    /// Tells the client that nothing is at `key`.
    fn nothing_at(client: &mut Client, key: &str) -> Vec<Answered> {
        let response = DeltaDiscoveryResponse {
            type_url: Kind::Address.url().to_owned(),
            nonce: "1".to_owned(),
            removed_resources: vec![key.to_owned()],
            ..DeltaDiscoveryResponse::default()
        };
        client.handle_response(response).1.applied(client).answered
    }

    #[tokio::test]
    async fn a_connection_waits_until_the_answer_is_in_force_and_the_next_one_does_not() {
        let lookups = Lookups::on_demand();
        let (mut desk, mut client) = (lookups.take_desk(), client(Limits::default()));
        client.on_connect();
        let (first, ()) = tokio::join!(lookups.settle("net/10.0.0.9".to_owned()), async {
            let asked = desk.next().await;
            desk.take(asked, &mut client, clock::monotonic());
            let request = client.poll_lookups().unwrap();
            assert_eq!(request.resource_names_subscribe, ["net/10.0.0.9"]);
            let answered = nothing_at(&mut client, "net/10.0.0.9");
            desk.answered(&answered);
        });
        first.unwrap();
        // Settled, also while there is no stream.
        client.on_disconnect();
        let second = lookups.settle("net/10.0.0.9".to_owned());
        let (second, ()) = tokio::join!(second, async {
            let asked = desk.next().await;
            desk.take(asked, &mut client, clock::monotonic());
        });
        second.unwrap();
    }

    #[tokio::test]
    async fn whoever_gets_no_answer_is_refused_by_name() {
        let limits = Limits { lookup_timeout: Duration::ZERO, waiters_max: 1, ..Limits::default() };
        let lookups = Lookups::on_demand();
        let (mut desk, mut client) = (lookups.take_desk(), client(limits));
        let (late, many) =
            (lookups.settle("net/10.0.0.8".to_owned()), lookups.settle("net/10.0.0.9".to_owned()));
        let serve = async {
            for _ in 0..2 {
                let asked = desk.next().await;
                desk.take(asked, &mut client, clock::monotonic());
            }
            desk.expire(&mut client, clock::monotonic());
        };
        let (late, many, ()) = tokio::join!(late, many, serve);
        for (refused, key) in [(late, "net/10.0.0.8"), (many, "net/10.0.0.9")] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.reason, Reason::ControlPlaneUnreachable);
            assert!(refused.detail.ends_with(key), "{refused}");
        }
        assert!(desk.waiting.is_empty(), "nobody is forgotten at the desk");
    }

    #[tokio::test]
    async fn nothing_waits_where_everything_is_sent_unasked() {
        Lookups::default().settle("net/10.0.0.9".to_owned()).await.unwrap();
    }
}
