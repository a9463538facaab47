//! Commands and connections in pods and on nodes.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_net::linux::netns::{NETNS_DIR, NetNs};
use serde_json::Value;

use super::{Background, Lab, Output, PATIENCE, ambit, split, summary};

impl Lab {
    /// Runs a command in a pod (`NAMESPACE/NAME`), whatever its exit code.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, pod: &str, command: &[&str]) -> Output {
        self.spawn(pod, command).finish(PATIENCE)
    }

    /// Starts a command in a pod (`NAMESPACE/NAME`).
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, pod: &str, command: &[&str]) -> Background {
        let (namespace, name) = split(pod);
        let args = [&["lab", "exec", "-n", namespace, name, "--"], command].concat();
        Background::start(&mut self.command(&args))
    }

    /// Opens a TCP connection from within a pod's namespace (`NAMESPACE/NAME`); it does not block.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[track_caller]
    #[must_use]
    pub fn connect_from(&self, pod: &str, to: SocketAddr) -> TcpStream {
        let (namespace, name) = split(pod);
        let path = Path::new(NETNS_DIR).join(format!("{}-pod-{namespace}-{name}", self.name));
        let netns = NetNs::open(&path).expect("the pod's namespace");
        let tcp = netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).expect("entering it");
        let tcp = tcp.unwrap_or_else(|e| panic!("connecting from {pod} to {to}: {e}"));
        tcp.set_nonblocking(true).expect("a socket");
        tcp
    }

    /// Runs a command in a node's namespace.
    #[track_caller]
    #[must_use]
    pub fn on_node(&self, node: &str, command: &[&str]) -> Output {
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &format!("{}-node-{node}", self.name)]).args(command);
        Background::start(&mut outer).finish(PATIENCE)
    }

    /// Starts the traffic oracle's client in a pod; [`summary`] reads what it came to.
    #[track_caller]
    #[must_use]
    pub fn client(&self, pod: &str, target: &str, args: &[&str]) -> Background {
        let ambit = ambit();
        self.spawn(pod, &[&[&*ambit, "echoer", "client", target, "--events"], args].concat())
    }

    /// Runs the traffic oracle's client in a pod to its end; its summary.
    #[track_caller]
    #[must_use]
    pub fn call(&self, pod: &str, target: &str, args: &[&str]) -> Value {
        summary(&self.client(pod, target, args).finish(PATIENCE))
    }
}
