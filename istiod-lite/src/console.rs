//! The HTTP API for people and the web console: what is known of the mesh and what the proxies tell, to be read.
//!
//! The API is served on the admin socket and, where `--console-listen` says so, over TCP together with the console's
//! bundle: by plain HTTP on loopback, by TLS elsewhere. Nothing here changes the mesh: questions that are posted are
//! answered and forgotten. What proxies tell comes through [`Gathered`]; what would be decided comes from
//! `ambit_explain`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ambit_explain::Flow;
use ambit_runtime::drain::Drain;
use anyhow::Context as _;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use crate::ca::keeper::Keeper;
use crate::config;
use crate::push::Publisher;
use crate::report::Sources;
use crate::world::World;

mod api;
mod assets;
mod events;
mod facts;
mod guard;
mod judge;
mod leaves;
mod live;
mod looks;
mod node;
mod places;
mod policies;
pub mod server;
mod stall;

pub use api::routes;
pub use guard::Guard;
pub(crate) use leaves::{keep, plain};
pub use live::Live;

/// Something that takes a while.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What each proxy that was asked answered, by its name; in words why, where it did not.
pub type Answers = BTreeMap<String, Result<Value, String>>;

/// Records that were asked for.
#[derive(Debug, Default)]
pub struct Records {
    /// The records, oldest first, as `/flows` of a proxy has them.
    pub records: Vec<Value>,
    /// When the oldest that is still kept anywhere ended, RFC 3339.
    pub oldest: Option<String>,
    /// How many could not be kept.
    pub lost: u64,
    /// How many older ones there were that one answer has no room for.
    pub left_out: u64,
    /// Proxies that did not answer, with the cause.
    pub incomplete: Vec<String>,
}

/// How much of what happened the counts of pairs hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Since when proxies were heard, RFC 3339; none if none was.
    pub since: Option<String>,
    /// Until when at least all is told that those who attend saw, RFC 3339; none if nobody attends.
    pub until: Option<String>,
    /// Connections and requests of which only the number is known, or that were told by who may not tell of them.
    pub lost: u64,
    /// Pairs that were forgotten for others.
    pub forgotten: u64,
}

/// What attached proxies tell. Implemented by the hub; a trait because tests of the API need no proxies.
pub trait Gathered: fmt::Debug + Send + Sync + 'static {
    /// Pairs of the last `window`, each as an edge item.
    fn edges(&self, window: Duration) -> Vec<Value>;
    /// The same with what each side of them told, for whoever adds the edges of several replicas up.
    fn reported(&self, window: Duration) -> Vec<Value>;
    /// The same pairs as records to be decided again, each with how many connections it stands for.
    fn seen(&self, window: Duration) -> Vec<Flow>;
    /// What such records rest on.
    fn coverage(&self) -> Coverage;
    /// Refusals beside changes of configuration, newest first.
    fn incidents(&self) -> Vec<Value>;
    /// Attached proxies by name (a node's, or `NAMESPACE/POD` of a waypoint) with their versions.
    fn attached(&self) -> BTreeMap<String, String>;
    /// The last reports of tests of themselves, by node, as `/selftest` of a ztunnel has them.
    fn self_tests(&self) -> Later<BTreeMap<String, Value>>;
    /// The certificates that proxies hold, of each proxy what is kept of its list of [`ambit_runtime::leaves::Leaf`]: of one
    /// identity, and of the proxy that is named, or of all.
    fn certificates(&self, identity: Option<String>, of: Option<String>) -> Later<Answers>;
    /// The newest connections that a node has open, at most so many, as `/connections` of a ztunnel has them; of nobody,
    /// if it does not attend.
    fn connections(&self, node: String, most: u32) -> Later<Answers>;
    /// What a node's proxy uses, as `/budget` of a ztunnel has it; of nobody, if it does not attend.
    fn budget(&self, node: String) -> Later<Answers>;
    /// The newest records of every proxy that pass the filters of the query.
    fn flows(&self, filter: BTreeMap<String, String>, last: usize) -> Later<Records>;
    /// Records that pass, as they come, until the receiver goes away.
    fn follow(&self, filter: BTreeMap<String, String>) -> mpsc::Receiver<Value>;
    /// Refusals as they come, each as JSON without an end of line.
    fn refusals(&self) -> broadcast::Receiver<Arc<str>>;
}

/// What the API reads.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The mesh as it is configured.
    pub world: Arc<World>,
    /// Who has which of it.
    pub publisher: Arc<Publisher>,
    /// What is wrong with the configuration.
    pub sources: Arc<Sources>,
    /// The authority.
    pub keeper: Keeper,
    /// What proxies tell.
    pub gathered: Arc<dyn Gathered>,
    /// Changes with every change of configuration.
    pub changed: watch::Receiver<u64>,
    /// What readers share.
    pub live: Live,
}

/// Serves the console where the configuration says so, until `drain` begins; with the TLS settings of our own server where
/// others than this machine can call.
///
/// # Errors
/// When the address cannot be had.
pub async fn start(
    config: &config::Console,
    parts: &Parts,
    tls: &ServerConfig,
    drain: &Drain,
) -> anyhow::Result<()> {
    let Some(address) = config.console_listen else { return Ok(()) };
    let listener = crate::listen::bind(address).await.with_context(|| {
        format!("listening on {address} for the console; does something else listen there?")
    })?;
    let guard = Guard::new(config.console_token_file.clone());
    if address.ip().to_canonical().is_loopback() {
        server::serve(listener, routes(parts), guard, drain);
    } else {
        server::serve_tls(listener, tls.clone(), routes(parts), guard, drain);
    }
    tracing::info!(listen = %address, "the console is served");
    Ok(())
}
