//! The lab that is measured: its manifests, its life, and what it says about itself.
//!
//! All contenders' pods stand side by side in one lab, so that runs can alternate without anything being started
//! between them. What runs against them is not decided here.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use crate::child::{self, Output, Stop};
use crate::contenders::{
    CLIENTS, Contender, ECHO, HOPS, HTTP, Hop, IPERF, Next, Place, Pod, SERVERS, Way, haproxy_config, hops,
};
use crate::{congestion, cpu, out};

/// How long the lab's own commands may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The small file of the request measures.
const PAGE_BYTES: usize = 612;

/// A lab that is up; taken down when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    ambit: PathBuf,
    folder: PathBuf,
    stop: Stop,
    status: Value,
}

impl Lab {
    /// Brings the lab up with everything that is measured in it.
    ///
    /// # Errors
    /// If a program is missing, or the lab does not come up; nothing is left behind then.
    pub(crate) fn up(
        name: &str,
        binaries: &Path,
        folder: &Path,
        set: &[String],
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        for program in ["ambit", "ztunnel", "istiod-lite", "ambit-cni"] {
            let path = binaries.join(program);
            if !path.is_file() {
                anyhow::bail!("{} is missing; build it with: make build", path.display());
            }
        }
        let (ambit, folder) = (binaries.join("ambit"), folder.join("run"));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut lab = Self { name: name.to_owned(), ambit, folder, stop: stop.clone(), status: Value::Null };
        // What a killed run left is in the way.
        lab.ambit(&["lab", "down"])?.ok("ambit lab down")?;
        out::say(&format!("bench: bringing up lab {name}"));
        let pods = lab.write("pods.yaml", &lab.pods()?)?;
        let congestion = format!("tcp_congestion={}", congestion::CUBIC);
        let mut args = vec!["lab", "up", "-f", &pods, "--set", &congestion];
        args.extend(set.iter().flat_map(|s| ["--set", s]));
        lab.ambit(&args)?.ok("ambit lab up")?;
        lab.refresh()?;
        let hops = lab.write("hops.yaml", &lab.hop_pods()?)?;
        let applied = lab.ambit(&["lab", "apply", "-f", &hops])?.ok("ambit lab apply");
        applied.map_err(|e| e.context(lab.hop_log()))?;
        lab.refresh()?;
        Ok(lab)
    }

    /// Runs `ambit ARGS…` for this lab.
    pub(crate) fn ambit(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.ambit_until(&self.stop, args)
    }

    fn ambit_until(&self, stop: &Stop, args: &[&str]) -> anyhow::Result<Output> {
        let (ambit, name) = (self.program(), format!("AMBIT_LAB={}", self.name));
        let mut line = vec!["env", &name, &ambit];
        line.extend_from_slice(args);
        child::run(stop, None, &line, PATIENCE)
    }

    /// The command line's own program.
    pub(crate) fn program(&self) -> String {
        self.ambit.display().to_string()
    }

    fn write(&self, name: &str, objects: &[Value]) -> anyhow::Result<String> {
        let texts: Vec<String> = objects.iter().map(|o| format!("{o:#}")).collect();
        self.file(name, &texts.join("\n---\n"))
    }

    /// Writes a file of the run; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn refresh(&mut self) -> anyhow::Result<()> {
        let text = self.ambit(&["lab", "status", "-o", "json"])?.ok("ambit lab status")?;
        self.status = serde_json::from_str(&text).context("reading ambit lab status")?;
        Ok(())
    }

    fn pods(&self) -> anyhow::Result<Vec<Value>> {
        let mut objects = vec![namespace("plain", false), namespace("mesh", true), selects_tunnelled()];
        objects.extend(CLIENTS.iter().map(|p| pod(p, json!([{"name": "client"}]))));
        for server in &SERVERS {
            let config = nginx_config(&self.page()?);
            let config = self.file(&format!("{}-{}.nginx", server.namespace, server.name), &config)?;
            objects.push(pod(server, self.serving(&config)));
        }
        Ok(objects)
    }

    /// The folder with the small file.
    fn page(&self) -> anyhow::Result<String> {
        let folder = self.folder.join("www");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(folder.join("page"), "a".repeat(PAGE_BYTES))?;
        Ok(folder.display().to_string())
    }

    /// The containers of a pod that serves.
    fn serving(&self, nginx: &str) -> Value {
        // A /run of the container's own, so that nothing of nginx stays on the machine.
        let start = format!("mount -t tmpfs tmpfs /run && exec nginx -p /run -e stderr -c {nginx}");
        json!([
            container("iperf", &["iperf3", "-s", "-p", &IPERF.to_string()], IPERF, false),
            container("http", &["sh", "-c", &start], HTTP, true),
            container(
                "echo",
                &[&self.program(), "echoer", "server", "--listen", &format!("[::]:{ECHO}")],
                ECHO,
                true
            ),
        ])
    }

    fn hop_pods(&self) -> anyhow::Result<Vec<Value>> {
        let object = |hop: &Hop| {
            let next = match hop.next {
                Next::Hop(node, _) => self.node_address(node)?,
                Next::Pod(pod) => self.address(pod)?,
            };
            let config = self.file(&format!("{}.haproxy", hop.pod.name), &haproxy_config(hop, next))?;
            let run = container("haproxy", &["haproxy", "-db", "-f", &config], HTTP + hop.listen, true);
            let mut object = pod(&hop.pod, json!([run]));
            object["spec"]["hostNetwork"] = json!(true);
            Ok(object)
        };
        HOPS.iter().map(object).collect()
    }

    /// What the first hop says, for when it does not come up.
    fn hop_log(&self) -> String {
        let log = self.ambit(&["lab", "logs", &format!("pod/plain/{}", HOPS[0].pod.name)]);
        let text = log.map_or_else(|e| format!("{e:#}"), |output| output.stdout);
        let last: Vec<&str> = text.lines().filter(|l| l.contains("ALERT")).take(3).collect();
        format!("HAProxy says: {}", last.join("; "))
    }

    /// A pod's IPv4 address.
    fn address(&self, pod: Pod) -> anyhow::Result<IpAddr> {
        let found = self.pod_status(pod)?;
        first_v4(&found["addresses"])
            .ok_or_else(|| anyhow!("pod {}/{} has no IPv4 address", pod.namespace, pod.name))
    }

    fn pod_status(&self, pod: Pod) -> anyhow::Result<&Value> {
        let pods = self.status["pods"].as_array().into_iter().flatten();
        let mut found = pods.filter(|p| p["namespace"] == pod.namespace && p["name"] == pod.name);
        found.next().ok_or_else(|| anyhow!("ambit lab status names no pod {}/{}", pod.namespace, pod.name))
    }

    fn node_address(&self, node: &str) -> anyhow::Result<IpAddr> {
        let mut nodes = self.status["nodes"].as_array().into_iter().flatten();
        let found = nodes.find(|n| n["name"] == node).and_then(|n| first_v4(&n["addresses"]));
        found.ok_or_else(|| anyhow!("ambit lab status names no IPv4 address of {node}"))
    }

    fn ztunnel(&self, node: &str) -> anyhow::Result<u32> {
        let target = format!("ztunnel/{node}");
        let mut programs = self.status["programs"].as_array().into_iter().flatten();
        let pid = programs.find(|p| p["target"] == target.as_str()).and_then(|p| p["pid"].as_u64());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| anyhow!("{target} does not run; its log is: ambit lab logs {target}"))
    }

    fn haproxy(&self, hop: &Hop) -> anyhow::Result<u32> {
        let root = self.pod_status(hop.pod)?["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let found = root.and_then(|root| cpu::descendant(root, "haproxy"));
        found.ok_or_else(|| anyhow!("haproxy of pod plain/{} does not run", hop.pod.name))
    }

    /// The way of a contender's connections at a place.
    ///
    /// # Errors
    /// If one of its proxies does not run.
    pub(crate) fn way(&self, contender: Contender, place: Place) -> anyhow::Result<Way> {
        let (client, server) = contender.pods(place);
        let netns = format!("{}-pod-{}-{}", self.name, client.namespace, client.name);
        let direct =
            |proxies| Ok(Way { client: netns.clone(), host: self.address(server)?, moved: 0, proxies });
        match contender {
            Contender::NoMesh => direct(Vec::new()),
            Contender::Haproxy => {
                let hops = hops(place);
                let proxies = hops.iter().map(|hop| self.haproxy(hop)).collect::<anyhow::Result<_>>()?;
                let (host, moved) = (self.node_address(hops[0].pod.node)?, hops[0].listen);
                Ok(Way { client: netns, host, moved, proxies })
            }
            Contender::Ambit | Contender::AmbitHbone => {
                let mut nodes = vec![client.node, server.node];
                nodes.dedup();
                direct(nodes.into_iter().map(|node| self.ztunnel(node)).collect::<anyhow::Result<_>>()?)
            }
        }
    }

    /// Checks that the mesh records a contender's connections with the path that is to be measured.
    ///
    /// # Errors
    /// If the last record names another path.
    pub(crate) fn check_path(&self, contender: Contender, place: Place) -> anyhow::Result<()> {
        let Some(wanted) = contender.path(place) else { return Ok(()) };
        let (_, server) = contender.pods(place);
        let to = format!("{}/{}", server.namespace, server.name);
        let args = ["flows", "-o", "json", "--last", "1000", "--to-pod", &to];
        let text = self.ambit(&args)?.ok("ambit flows")?;
        let last = text.lines().next_back().ok_or_else(|| anyhow!("the mesh has no record of {to}"))?;
        let record: Value = serde_json::from_str(last).context("reading ambit flows")?;
        if record["path"] != wanted {
            anyhow::bail!("connections to {to} take the path {}, not {wanted:?}", record["path"]);
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.ambit_until(&Stop::never(), &["lab", "down"]).and_then(|o| o.ok("ambit lab down"));
        if let Err(e) = down {
            out::say(&format!("bench: {e:#}; try: ambit lab down --name {}", self.name));
        }
        // Configuration of servers that are gone; a leftover is overwritten by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn first_v4(addresses: &Value) -> Option<IpAddr> {
    let mut all = addresses.as_array()?.iter().filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
    all.find(IpAddr::is_ipv4)
}

fn namespace(name: &str, enrolled: bool) -> Value {
    let labels = if enrolled { json!({"istio.io/dataplane-mode": "ambient"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A NetworkPolicy that allows everything: its selection alone keeps the pod from the same-node short cut.
fn selects_tunnelled() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "tunnelled", "namespace": "mesh"},
        "spec": {"podSelector": {"matchLabels": {"app": "tunnelled"}}, "policyTypes": ["Ingress"], "ingress": [{}]},
    })
}

fn pod(pod: &Pod, containers: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": {"app": pod.name}},
        "spec": {"nodeName": pod.node, "containers": containers},
    })
}

/// A container that listens; `probed` ones are waited for. Probes end with the start, so that none disturbs a run.
fn container(name: &str, command: &[&str], port: u16, probed: bool) -> Value {
    let mut container = json!({"name": name, "command": command, "ports": [{"containerPort": port}]});
    if probed {
        container["startupProbe"] =
            json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30});
    }
    container
}

fn nginx_config(page: &str) -> String {
    let places: BTreeMap<&str, &str> = [
        ("client_body_temp_path", "/run/body"),
        ("proxy_temp_path", "/run/proxy"),
        ("fastcgi_temp_path", "/run/fastcgi"),
        ("uwsgi_temp_path", "/run/uwsgi"),
        ("scgi_temp_path", "/run/scgi"),
    ]
    .into();
    let places: String = places.iter().map(|(key, value)| format!("  {key} {value};\n")).collect();
    // Two workers for two cores of load; each accepts for itself.
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\nworker_rlimit_nofile 16384;\npid /run/nginx.pid;\n\
         error_log stderr crit;\nevents {{ worker_connections 8192; }}\nhttp {{\n{places}  access_log off;\n  \
         sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         open_file_cache max=16;\n  open_file_cache_valid 1h;\n  server {{\n    listen {HTTP} reuseport backlog=4096;\n    \
         root {page};\n  }}\n}}\n"
    )
}
