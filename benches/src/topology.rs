//! The lab in which the mesh is measured: its manifests, and the ways of the contenders' connections.
//!
//! All contenders' pods stand side by side in one lab, so that runs can alternate without anything being started
//! between them. What runs against them is not decided here.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use crate::child::Stop;
use crate::contenders::{
    CLIENTS, Contender, ECHO, HOPS, HTTP, Hop, IPERF, Next, Place, SERVERS, Way, haproxy_config, hops,
};
use crate::lab::Lab;
use crate::objects::{container, namespace, nginx, nginx_config, pod};

/// The programs of such a lab.
const PROGRAMS: [&str; 4] = ["ambit", "ztunnel", "istiod-lite", "ambit-cni"];
/// The small file of the request measures.
const PAGE_BYTES: usize = 612;

impl Lab {
    /// Brings a lab up with everything that the mesh is measured with.
    ///
    /// # Errors
    /// If a program is missing, or the lab does not come up; nothing is left behind then.
    pub(crate) fn of_mesh(
        name: &str,
        binaries: &Path,
        folder: &Path,
        set: &[String],
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let mut lab = Self::new(name, binaries, folder, &PROGRAMS, stop)?;
        let pods = lab.pods()?;
        lab.up(&pods, set)?;
        let hops = lab.hop_pods()?;
        lab.apply("hops.yaml", &hops).map_err(|e| e.context(lab.hop_log()))?;
        Ok(lab)
    }

    fn pods(&self) -> anyhow::Result<Vec<Value>> {
        let mut objects = vec![namespace("plain", false), namespace("mesh", true), selects_tunnelled()];
        objects.extend(CLIENTS.iter().map(|p| pod(p, json!([{"name": "client"}]))));
        for server in &SERVERS {
            let config = nginx_config(&page_server(&self.page()?));
            let config = self.file(&format!("{}-{}.nginx", server.namespace, server.name), &config)?;
            objects.push(pod(server, self.serving(&config)));
        }
        Ok(objects)
    }

    /// The folder with the small file.
    fn page(&self) -> anyhow::Result<String> {
        let folder = self.folder().join("www");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(folder.join("page"), "a".repeat(PAGE_BYTES))?;
        Ok(folder.display().to_string())
    }

    /// The containers of a pod that serves.
    fn serving(&self, config: &str) -> Value {
        json!([
            container("iperf", &["iperf3", "-s", "-p", &IPERF.to_string()], IPERF, false),
            nginx(config, HTTP),
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
            let next: IpAddr = match hop.next {
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

    /// The way of a contender's connections at a place.
    ///
    /// # Errors
    /// If one of its proxies does not run.
    pub(crate) fn way(&self, contender: Contender, place: Place) -> anyhow::Result<Way> {
        let (client, server) = contender.pods(place);
        let netns = self.netns(client);
        let direct =
            |proxies| Ok(Way { client: netns.clone(), host: self.address(server)?, moved: 0, proxies });
        match contender {
            Contender::NoMesh => direct(Vec::new()),
            Contender::Haproxy => {
                let hops = hops(place);
                let proxies =
                    hops.iter().map(|hop| self.process(hop.pod, "haproxy")).collect::<anyhow::Result<_>>()?;
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

/// A NetworkPolicy that allows everything: its selection alone keeps the pod from the same-node short cut.
fn selects_tunnelled() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "tunnelled", "namespace": "mesh"},
        "spec": {"podSelector": {"matchLabels": {"app": "tunnelled"}}, "policyTypes": ["Ingress"], "ingress": [{}]},
    })
}

fn page_server(page: &str) -> String {
    format!("  server {{\n    listen {HTTP} reuseport backlog=4096;\n    root {page};\n  }}\n")
}
