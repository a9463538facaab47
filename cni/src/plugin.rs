//! The CNI plugin: a short-lived program of the container runtime's that asks the node agent before a pod starts.
//!
//! It is chained after the plugins that make the pod's network, changes nothing itself and keeps nothing. Where the
//! agent cannot be asked, a pod does not start unless its namespace is excluded or the agent's own: better a pod that
//! waits than one outside the mesh. Pods on the node's network have no plugins called for them at all.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use ambit_net::linux::netns::NetNs;
use ambit_net::seqpacket::SeqpacketConn;
use ambit_runtime::clock;
use serde_json::json;
use tokio::time::timeout_at;

use spec::{CniError, Code, Command, Environment, Network, PodRef, SUPPORTED};
use wire::{Answer, Ask, Question, Verdict};

pub mod conflist;
pub mod spec;
pub mod wire;

#[cfg(test)]
mod tests;

/// Longest configuration that is read.
const STDIN_MAX: u64 = 1 << 20;
/// How long a pod's start waits for an agent that is away, such as one being replaced.
const CONNECTING: Duration = Duration::from_secs(10);
/// Pause between two tries to connect: a socket that does not exist yet cannot be waited for.
const RECONNECT: Duration = Duration::from_millis(100);
/// How long the agent's answer is waited for; longer than the agent allows itself.
const ANSWERING: Duration = Duration::from_secs(20);
/// How long a pod's end waits for the agent: it goes on without it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the program prints and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// For standard output; the container runtime reads it.
    pub text: String,
    /// The exit code: 0, or 1 with an error object as the text.
    pub code: u8,
    /// For standard error, which runtimes put into their log.
    pub remark: Option<String>,
}

impl Output {
    fn ok(text: String) -> Self {
        Self { text, code: 0, remark: None }
    }

    fn error(error: &CniError) -> Self {
        Self { text: error.to_json(), code: 1, remark: Some(error.to_string()) }
    }
}

/// Time limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest wait for the agent to listen.
    pub connecting: Duration,
    /// Longest wait for its answer.
    pub answering: Duration,
}

impl Default for Limits {
    /// 10 s and 20 s.
    fn default() -> Self {
        Self { connecting: CONNECTING, answering: ANSWERING }
    }
}

/// Carries out one call of the container runtime's.
pub fn run(environment: &Environment, stdin: impl Read, limits: Limits) -> Output {
    let mut text = String::new();
    if let Err(error) = stdin.take(STDIN_MAX).read_to_string(&mut text) {
        return Output::error(&CniError::new("", Code::Io, format!("reading the configuration: {error}")));
    }
    let command = match Command::read(environment) {
        Ok(command) => command,
        Err(error) => return Output::error(&error),
    };
    if command == Command::Version {
        let version = spec::version_of(&text)
            .unwrap_or_else(|| SUPPORTED.last().copied().unwrap_or_default().to_owned());
        return Output::ok(format!("{}\n", json!({"cniVersion": version, "supportedVersions": SUPPORTED})));
    }
    let network = match Network::read(&text) {
        Ok(network) => network,
        // Taking down must go on, whatever became of the configuration.
        Err(error) if command == Command::Del => {
            return Output { remark: Some(error.to_string()), ..Output::ok(String::new()) };
        }
        Err(error) => return Output::error(&error),
    };
    match call(command, environment, &network, limits) {
        Ok(output) => output,
        Err(error) => Output::error(&CniError { cni_version: network.cni_version, ..error }),
    }
}

fn call(
    command: Command,
    environment: &Environment,
    network: &Network,
    limits: Limits,
) -> Result<Output, CniError> {
    match command {
        Command::Add | Command::Check => {
            let result = network.result()?;
            let remark = admit(command, environment, network, limits)?;
            // What earlier plugins found is passed on as it came.
            let text = if command == Command::Add { format!("{result}\n") } else { String::new() };
            Ok(Output { remark, ..Output::ok(text) })
        }
        Command::Del => {
            let said = depart(environment, network, limits);
            Ok(Output { remark: said.err(), ..Output::ok(String::new()) })
        }
        // STATUS would take the whole node out of service while the agent restarts; excluded pods can start.
        Command::Gc | Command::Status | Command::Version => Ok(Output::ok(String::new())),
    }
}

/// Asks whether the pod may start; what it returns is worth a line in the runtime's log.
fn admit(
    command: Command,
    environment: &Environment,
    network: &Network,
    limits: Limits,
) -> Result<Option<String>, CniError> {
    let Some(pod) = environment.pod() else { return Ok(None) };
    if network.exclude_namespaces.contains(&pod.namespace) {
        return Ok(None);
    }
    let path = environment.netns.as_deref().ok_or_else(|| {
        CniError::new("", Code::Environment, "CNI_NETNS is not set, and the pod's namespace is needed")
    })?;
    let netns = NetNs::open(Path::new(path))
        .map_err(|e| CniError::new("", Code::Environment, format!("CNI_NETNS={path}: {}", in_full(&e))))?;
    let ask = if command == Command::Add { Ask::Add } else { Ask::Check };
    let question = question(ask, environment, network, &pod);
    let answer = match ask_agent(network, &question, Some(&netns), limits) {
        Ok(answer) => answer,
        Err(why) if network.agent_namespace.as_ref() == Some(&pod.namespace) => {
            return Ok(Some(format!(
                "{why}; {} starts all the same: it is in the agent's own namespace",
                pod.name
            )));
        }
        Err(why) => return Err(CniError::new("", Code::Later, why)),
    };
    match answer.verdict {
        Verdict::Proceed => Ok(None),
        Verdict::Later => Err(CniError::new("", Code::Later, answer.message).about(&pod, answer.reason)),
        Verdict::Refused => Err(CniError::new("", Code::Refused, answer.message).about(&pod, answer.reason)),
    }
}

/// Tells the agent that a sandbox is taken down. It learns so anyway, so nothing here may hold that up.
fn depart(environment: &Environment, network: &Network, limits: Limits) -> Result<(), String> {
    let Some(pod) = environment.pod() else { return Ok(()) };
    if network.exclude_namespaces.contains(&pod.namespace) {
        return Ok(());
    }
    let question = question(Ask::Del, environment, network, &pod);
    let limits = Limits { connecting: Duration::ZERO, answering: limits.answering.min(FAREWELL) };
    ask_agent(network, &question, None, limits).map(drop)
}

fn question(ask: Ask, environment: &Environment, network: &Network, pod: &PodRef) -> Question {
    Question {
        version: wire::VERSION,
        ask,
        container: environment.container_id.clone().unwrap_or_default(),
        pod: pod.clone(),
        addresses: network.addresses(),
    }
}

fn ask_agent(
    network: &Network,
    question: &Question,
    netns: Option<&NetNs>,
    limits: Limits,
) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("starting the runtime: {e}"))?;
    runtime.block_on(async {
        let begun = clock::monotonic();
        loop {
            let tried = exchange(
                Path::new(&network.socket),
                question,
                netns,
                begun + limits.connecting + limits.answering,
            );
            let why = match tried.await {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            if clock::monotonic() + RECONNECT > begun + limits.connecting {
                return Err(format!(
                    "the mesh's node agent does not answer at {} ({why}); is ambit-cni running on this node?",
                    network.socket
                ));
            }
            tokio::time::sleep(RECONNECT).await;
        }
    })
}

/// One question, one answer.
async fn exchange(
    socket: &Path,
    question: &Question,
    netns: Option<&NetNs>,
    deadline: Instant,
) -> Result<Answer, String> {
    use std::os::fd::AsFd as _;
    let conn = SeqpacketConn::connect(socket).map_err(|e| in_full(&e))?;
    let packet = wire::write(question)?;
    let talk = async {
        conn.send(&packet, netns.map(NetNs::as_fd)).await.map_err(|e| format!("sending: {e}"))?;
        let mut buffer = vec![0; wire::PACKET_MAX];
        let received = conn.recv(&mut buffer).await.map_err(|e| format!("receiving: {e}"))?;
        if received.is_end() {
            return Err("it closed the connection; is another version of it running?".to_owned());
        }
        wire::read(buffer.get(..received.len).unwrap_or_default())
    };
    timeout_at(deadline.into(), talk).await.map_err(|_| "it took too long".to_owned())?
}

/// An error with its causes, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}
