//! One discovery stream: moves requests and responses, knows nothing of what they say.
//!
//! A server that never answers is as good as none (G9, G48); one that is quiet after its first answer is healthy.

use std::pin::Pin;
use std::time::Duration;

use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::channel::{Caller, ChannelError, Target};
use super::services::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

/// Largest response taken: full state of a large mesh comes in one message.
const MESSAGE_BYTES_MAX: usize = 200 << 20;
/// Requests that may wait to be sent.
const QUEUE_REQUESTS: usize = 64;

/// Longest wait for the first response of a stream, counted from when the channel is there.
const FIRST_RESPONSE: Duration = Duration::from_secs(10);

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
    /// The server took the stream and said nothing on it.
    #[error(
        "the control plane did not answer within {FIRST_RESPONSE:?}; is it overloaded, or something else?"
    )]
    Silent,
}

/// An open stream.
#[derive(Debug)]
pub struct XdsStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Ends the wait for the first response; nothing afterwards.
    deadline: Option<Pin<Box<Sleep>>>,
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
        let mut deadline = Box::pin(sleep(FIRST_RESPONSE));
        // A server may send its headers with the first response only.
        let responses = tokio::select! {
            responses = client.delta_aggregated_resources(call) => responses,
            () = &mut deadline => return Err(StreamError::Silent),
        };
        let responses = responses.map_err(|s| StreamError::Status(Box::new(s)))?.into_inner();
        Ok(Self { requests, responses, deadline: Some(deadline) })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`StreamError::Closed`].
    pub async fn send(&self, request: DeltaDiscoveryRequest) -> Result<(), StreamError> {
        self.requests.send(request).await.map_err(|_| StreamError::Closed)
    }

    /// The next response. May be dropped.
    ///
    /// # Errors
    /// [`StreamError`] when the stream has ended, or the first response does not come in time.
    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, StreamError> {
        let message = match &mut self.deadline {
            None => self.responses.message().await,
            Some(deadline) => tokio::select! {
                message = self.responses.message() => message,
                () = deadline => return Err(StreamError::Silent),
            },
        };
        match message {
            Ok(Some(response)) => {
                self.deadline = None;
                Ok(response)
            }
            Ok(None) => Err(StreamError::Closed),
            Err(status) => Err(StreamError::Status(Box::new(status))),
        }
    }
}
