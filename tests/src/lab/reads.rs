//! What a lab says of its objects, programs and connections.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde_json::Value;

use super::{Lab, begun, split};

impl Lab {
    /// An object of the lab.
    ///
    /// # Panics
    /// If there is no such object.
    #[track_caller]
    #[must_use]
    pub fn get(&self, kind: &str, object: &str) -> Value {
        let (namespace, name) = split(object);
        let text = self.lab(&["get", kind, name, "-n", namespace, "-o", "json"]);
        serde_json::from_str(&text).expect("JSON from lab get")
    }

    /// A pod's first address of a family (4 or 6).
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    #[must_use]
    pub fn address(&self, pod: &str, family: u8) -> IpAddr {
        let object = self.get("pod", pod);
        let all = object["status"]["podIPs"].as_array().expect("status.podIPs");
        let mut addresses = all.iter().filter_map(|a| a["ip"].as_str()?.parse::<IpAddr>().ok());
        addresses.find(|a| a.is_ipv4() == (family == 4)).expect("an address of that family")
    }

    /// A pod's address of a family with a port, as a client writes it.
    #[track_caller]
    #[must_use]
    pub fn target(&self, pod: &str, family: u8, port: u16) -> String {
        SocketAddr::new(self.address(pod, family), port).to_string()
    }

    /// The process of a part (`istiod`, `ztunnel/NODE`, `cni/NODE`); 0 while it does not run.
    ///
    /// # Panics
    /// If the lab knows no such part.
    #[track_caller]
    #[must_use]
    pub fn pid(&self, part: &str) -> u64 {
        let status: Value =
            serde_json::from_str(&self.lab(&["status", "-o", "json"])).expect("JSON from lab status");
        let programs = status["programs"].as_array().expect("programs");
        let found = programs.iter().find(|p| p["target"] == part).expect("the part is known");
        found["pid"].as_u64().unwrap_or(0)
    }

    /// The first process of a pod that runs.
    ///
    /// # Panics
    /// If there is no such pod, or none of its processes runs.
    #[track_caller]
    #[must_use]
    pub fn pod_pid(&self, pod: &str) -> u64 {
        let (namespace, name) = split(pod);
        let status: Value =
            serde_json::from_str(&self.lab(&["status", "-o", "json"])).expect("JSON from lab status");
        let mut pods = status["pods"].as_array().into_iter().flatten();
        let found =
            pods.find(|p| p["name"] == name && p["namespace"] == namespace).expect("the pod is known");
        found["pid"].as_u64().expect("a process runs in it")
    }

    /// Whether a pod is captured.
    #[track_caller]
    #[must_use]
    pub fn is_captured(&self, pod: &str) -> bool {
        self.get("pod", pod)["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled"
    }

    /// The flow records of all nodes, oldest first, filtered by further arguments.
    #[track_caller]
    #[must_use]
    pub fn flows(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ambit(&[&["flows", "-o", "json", "--last", "10000"], args].concat()).ok();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON from ambit flows")).collect()
    }

    /// When the youngest of the allowed connections among the newest records was begun, of those that pass further
    /// arguments; none if none passes. Cheap enough to be asked again and again under load.
    ///
    /// # Panics
    /// If no node answers.
    #[track_caller]
    #[must_use]
    pub fn youngest(&self, args: &[&str]) -> Option<SystemTime> {
        let newest = ["flows", "-o", "json", "--last", "200", "--verdict", "allowed"];
        let text = self.ambit(&[&newest[..], args].concat()).ok();
        let flow = |line| serde_json::from_str::<Value>(line).expect("JSON from ambit flows");
        text.lines().map(|line| begun(&flow(line))).max()
    }
}
