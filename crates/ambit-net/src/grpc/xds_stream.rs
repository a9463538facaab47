//! One discovery stream: moves requests and responses, knows nothing of what they say.

use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::channel::{Caller, ChannelError, Target};
use super::services::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

/// Largest response taken: full state of a large mesh comes in one message.
const MESSAGE_BYTES_MAX: usize = 200 << 20;
/// Requests that may wait to be sent.
const QUEUE_REQUESTS: usize = 64;

/// Why there is no stream, or none any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// No channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The server ended the stream with a status.
    #[error("the control plane ended the stream: {:?} {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The server ended the stream without a word.
    #[error("the control plane closed the stream")]
    Closed,
}

/// An open stream.
#[derive(Debug)]
pub struct XdsStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl XdsStream {
    /// Opens a stream with its first requests.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(
        target: &Target,
        caller: &Caller,
        first: Vec<DeltaDiscoveryRequest>,
    ) -> Result<Self, StreamError> {
        let channel = target.connect().await?;
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS.max(first.len()));
        for request in first {
            // The queue was made large enough, and its reader is at hand.
            let _ = requests.try_send(request);
        }
        let mut call = Request::new(ReceiverStream::new(queue));
        caller.identify(call.metadata_mut())?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let responses =
            client.delta_aggregated_resources(call).await.map_err(|s| StreamError::Status(Box::new(s)))?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`StreamError::Closed`].
    pub async fn send(&self, request: DeltaDiscoveryRequest) -> Result<(), StreamError> {
        self.requests.send(request).await.map_err(|_| StreamError::Closed)
    }

    /// The next response.
    ///
    /// # Errors
    /// [`StreamError`] when the stream has ended.
    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, StreamError> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(StreamError::Closed),
            Err(status) => Err(StreamError::Status(Box::new(status))),
        }
    }
}
