//! `Observer`: admits a proxy as discovery does, and moves messages between it and the hub.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_control::Name;
use ambit_net::grpc::services::observer_server::Observer;
use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use ambit_xds::proto::ambit::observe::v1::{
    Cancel, Flows, FromProxy, Hello, Pace, ToProxy, from_proxy, to_proxy,
};
use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::hub::{Hub, Who, message};
use crate::ca::callers::Role;
use crate::ca::service::{Gate, Visitor};
use crate::push::service::{age, check_node};

/// Longest wait for a proxy's first message.
const HELLO: Duration = Duration::from_secs(10);
/// How often a proxy is looked at: is it still trusted, does anybody watch.
const LOOK: Duration = Duration::from_secs(1);
/// How often summaries are told, and how often while somebody watches.
const PACE: Duration = Duration::from_secs(5);
const PACE_WATCHED: Duration = Duration::from_secs(1);

/// The service that proxies attend.
#[derive(Debug, Clone)]
pub struct AttendService {
    gate: Arc<Gate>,
    hub: Hub,
    /// Changes with every change of configuration.
    changed: watch::Receiver<u64>,
    age_max: Duration,
    drain: Drain,
}

impl AttendService {
    /// A service that admits by `gate`; streams live `age_max` at most.
    pub fn new(
        gate: Arc<Gate>,
        hub: Hub,
        changed: watch::Receiver<u64>,
        age_max: Duration,
        drain: &Drain,
    ) -> Self {
        Self { gate, hub, changed, age_max, drain: drain.clone() }
    }
}

#[tonic::async_trait]
impl Observer for AttendService {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<ToProxy, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let source = request.remote_addr().map(|a| a.ip().to_canonical());
        // Nothing of the stream is read before the caller is known.
        let visitor = self.gate.admit(request.metadata(), source).await?;
        let (send, receiver) = mpsc::channel(Hub::QUEUE + 2);
        let ends = clock::monotonic() + age(self.age_max);
        let one = One { service: self.clone(), visitor, ends, send };
        drop(tasks::spawn("attend-stream", self.drain.track(one.serve(request.into_inner()))));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct One {
    service: AttendService,
    visitor: Visitor,
    ends: Instant,
    send: mpsc::Sender<Result<ToProxy, Status>>,
}

impl One {
    /// Serves the stream to its end; an error is told to the proxy.
    async fn serve(mut self, mut messages: Streaming<FromProxy>) {
        if let Err(status) = self.run(&mut messages).await {
            let node = &self.visitor.token.node;
            debug!(%node, code = ?status.code(), message = status.message(), "an attending proxy is sent away");
            // One that reads nothing any more learns it from the connection's end.
            let _ = self.send.try_send(Err(status));
        }
    }

    async fn run(&mut self, messages: &mut Streaming<FromProxy>) -> Result<(), Status> {
        let first = time::timeout(HELLO, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no first message within 10 s"))??;
        let Some(first) = first else { return Ok(()) };
        let Some(from_proxy::Content::Hello(hello)) = first.content else {
            return Err(Status::invalid_argument("the first message says who attends"));
        };
        let (role, who) = self.who(hello)?;
        info!(name = who.name, version = who.version, "a proxy attends");
        let attended = self.service.hub.attend(who, self.send.clone())?;
        let mut watching = Watching { id: attended.private_id(), is_on: None };
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.message() => match message? {
                    Some(message) => self.answer(attended.heard(message, watching.id))?,
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    if clock::monotonic() >= self.ends {
                        // The proxy opens another one, and shows a fresh token for it.
                        return Ok(());
                    }
                    self.look(&role)?;
                    watching.turn(&self.service.hub, &self.send);
                }
                () = self.send.closed() => return Ok(()),
                () = self.service.drain.draining() => {
                    return Err(Status::unavailable("the control plane is leaving"));
                }
            }
        }
    }

    /// What the proxy says of itself must be what its token proves.
    fn who(&self, hello: Hello) -> Result<(Role, Who), Status> {
        let token = &self.visitor.token;
        let stated = check_node(token, hello.node.as_ref())?;
        let role = self.service.gate.role(&self.visitor, &stated)?;
        let name = match &role {
            Role::Node => token.node.to_string(),
            Role::Waypoint(gateway) => format!("{}/{}", gateway.namespace, stated.pod_name),
        };
        let mut version = hello.version;
        version.retain(|c| !c.is_control());
        let version = version.chars().take(64).collect();
        let gateway = match &role {
            Role::Node => None,
            Role::Waypoint(key) => Some(Name::new(key.namespace.clone(), key.name.clone())),
        };
        let who = Who { name, node: token.node.to_string(), gateway, version, instance: hello.instance };
        Ok((role, who))
    }

    /// One whose node or pod was removed or replaced meanwhile is sent away.
    fn look(&mut self, role: &Role) -> Result<(), Status> {
        if self.service.changed.has_changed().unwrap_or(false) {
            self.service.changed.mark_unchanged();
            self.service.gate.still_trusted(&self.visitor, role)?;
        }
        Ok(())
    }

    fn answer(&self, answer: Option<ToProxy>) -> Result<(), Status> {
        let Some(answer) = answer else { return Ok(()) };
        self.send.try_send(Ok(answer)).map_err(|_| Status::aborted("the proxy takes no messages"))
    }
}

/// Whether a proxy was asked to tell refusals at once.
struct Watching {
    id: u64,
    /// None before it was told anything.
    is_on: Option<bool>,
}

impl Watching {
    /// Asks for refusals while somebody watches, and for summaries more often.
    fn turn(&mut self, hub: &Hub, send: &mpsc::Sender<Result<ToProxy, Status>>) {
        let is_watched = hub.is_watched();
        if self.is_on == Some(is_watched) {
            return;
        }
        let pace = if is_watched { PACE_WATCHED } else { PACE };
        let every_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
        let mut messages = vec![message(0, to_proxy::Content::Pace(Pace { every_ms }))];
        if is_watched {
            let filter = [("verdict".to_owned(), "denied".to_owned())].into();
            let flows = Flows { filter, last: 0, follow: true };
            messages.push(message(self.id, to_proxy::Content::Flows(flows)));
        } else if self.is_on.is_some() {
            messages.push(message(self.id, to_proxy::Content::Cancel(Cancel {})));
        }
        // Where there is no room it is tried again at the next look.
        if send.capacity() >= messages.len() {
            for message in messages {
                // There is room, and a proxy that is gone needs nothing.
                let _ = send.try_send(Ok(message));
            }
            self.is_on = Some(is_watched);
        }
    }
}
