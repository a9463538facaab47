//! `AggregatedDiscoveryService`: admits a caller and starts its stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::services::aggregated_discovery_service_server::AggregatedDiscoveryService;
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{self, Shared};
pub(crate) use super::stream::{age, check_node};
use super::{Publisher, Subject};
use crate::ca::callers::Admitted;
use crate::ca::service::Gate;

/// The discovery service.
#[derive(Debug, Clone)]
pub struct DiscoveryService {
    gate: Arc<Gate>,
    publisher: Arc<Publisher>,
    age_max: Duration,
    drain: Drain,
}

impl DiscoveryService {
    /// A service that admits by `gate` and serves what `publisher` has; streams live `age_max` at most.
    pub fn new(gate: Arc<Gate>, publisher: Arc<Publisher>, age_max: Duration, drain: &Drain) -> Self {
        Self { gate, publisher, age_max, drain: drain.clone() }
    }
}

/// Responses as they come.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let source = request.remote_addr().map(|a| a.ip().to_canonical());
        // Nothing of the stream is read before the caller is known.
        let visitor = self.gate.admit(request.metadata(), source).await?;
        // Which waypoint one is of is known from its first request; until then it counts for where it calls from.
        let subject = match visitor.admitted {
            Admitted::Node => Subject::Node(visitor.token.node.to_string()),
            Admitted::Waypoint(_) => Subject::Unnamed(visitor.caller.source),
        };
        let open = self.publisher.open(subject)?;
        // One response at a time is on its way, and behind it at most the status that ends the stream.
        let (responses, receiver) = mpsc::channel(2);
        let shared = Shared {
            gate: self.gate.clone(),
            visitor,
            open,
            publisher: self.publisher.clone(),
            latest: self.publisher.subscribe(),
            age_max: self.age_max,
            drain: self.drain.clone(),
        };
        let requests = request.into_inner();
        drop(tasks::spawn("xds-stream", self.drain.track(stream::serve(shared, requests, responses))));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
