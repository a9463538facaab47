//! The lab in which a waypoint is measured: for each number of routes a namespace with a waypoint and a server of its
//! own, and an Envoy on the waypoint's node with the same routes.
//!
//! So each proxy process has exactly one number of routes, and all stand side by side while runs alternate.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use super::envoy::{self, Files};
use super::proxies::{Protocol, Proxy, Routes};
use crate::child::{self, Stop, now};
use crate::contenders::{MESH_CLIENT, PLAIN_CLIENT, Pod};
use crate::lab::Lab;
use crate::objects::{container, namespace, nginx, nginx_config, pod};
use crate::options::Options;

/// Bytes of every answer's body.
const BODY_BYTES: usize = 1024;
/// Ports of servers and of Envoy: HTTP/1.1 and HTTP/2, in plaintext and with TLS.
pub(crate) const H1: u16 = 8080;
pub(crate) const H2: u16 = 8081;
pub(crate) const H1_TLS: u16 = 8443;
pub(crate) const H2_TLS: u16 = 8444;
/// Ports of the service.
const SERVICE_H1: u16 = 80;
const SERVICE_H2: u16 = 81;
/// Rules of one HTTPRoute: the most the Gateway API allows.
const RULES_OF_ROUTE: usize = 16;
/// Paths that one run asks for, spread over all routes.
const PATHS_OF_RUN: usize = 100;
/// How long routes may take to be in force.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const PROGRAMS: [&str; 5] = ["ambit", "ztunnel", "istiod-lite", "ambit-cni", "waypoint"];
/// One worker, as Envoy has.
const ONE_WORKER: &str = "waypoint.AMBIT_WORKER_THREADS=1";
const PLAIN_SERVER: Pod = Pod { namespace: "plain", name: "server", node: "node2" };

/// Path of a route, by its number.
pub(crate) fn path(number: usize) -> String {
    format!("/r/{number:05}")
}

/// A way from client to server through a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// Network namespace of the client.
    pub client: String,
    /// Whom the client calls.
    pub to: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether the client speaks TLS.
    pub is_tls: bool,
    /// How many routes there are.
    pub routes: Routes,
    /// The proxy's process; none without a proxy.
    pub proxy: Option<u32>,
    /// The ztunnels' processes.
    pub tunnels: Vec<u32>,
}

impl Way {
    /// The URLs that a run asks for in turn, one a line.
    pub(crate) fn urls(&self) -> String {
        let count = self.routes.count();
        let step = (count / PATHS_OF_RUN).max(1);
        // The last of each stretch, so that the very last route is among them.
        (0..count).skip(step - 1).step_by(step).map(|n| format!("{}\n", self.url(&path(n)))).collect()
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", host(self.routes))
    }
}

/// The lab with its cast.
#[derive(Debug)]
pub(crate) struct Stage {
    pub lab: Lab,
    vips: Vec<(Routes, IpAddr)>,
}

impl Stage {
    /// Brings it up, and waits until all routes are in force.
    ///
    /// # Errors
    /// If a program is missing, or something does not come up; nothing is left behind then.
    pub(crate) fn up(
        name: &str,
        binaries: &Path,
        folder: &Path,
        set: &[String],
        routes: &[Routes],
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let envoy = Options::envoy()?;
        if !envoy.is_file() {
            bail!("{} is missing; install it with: xtask/need.sh bench", envoy.display());
        }
        let mut lab = Lab::new(name, binaries, folder, &PROGRAMS, stop)?;
        let files = certificate(&lab, stop)?;
        let server = lab.file("server.nginx", &nginx_config(&servers(&files)))?;
        let mut set_all = vec![ONE_WORKER.to_owned()];
        set_all.extend_from_slice(set);
        lab.up(&first_objects(&server, routes), &set_all)?;
        let mut vips = Vec::new();
        for routes in routes {
            lab.apply(&format!("{}.yaml", routes.name()), &route_objects(*routes))?;
            vips.push((*routes, vip(&lab, *routes)?));
        }
        let envoys = envoys(&lab, &envoy, &files, routes)?;
        lab.apply("envoys.yaml", &envoys)?;
        let stage = Self { lab, vips };
        for routes in routes {
            for proxy in [Proxy::Envoy, Proxy::Ambit] {
                stage.until_in_force(&stage.way(proxy, Protocol::Http1, *routes)?, stop)?;
            }
        }
        Ok(stage)
    }

    /// The way through a proxy.
    ///
    /// # Errors
    /// If one of its processes does not run.
    pub(crate) fn way(&self, proxy: Proxy, protocol: Protocol, routes: Routes) -> anyhow::Result<Way> {
        let lab = &self.lab;
        let is_tls = proxy == Proxy::EnvoyTls;
        let port = match (protocol, is_tls) {
            (Protocol::Http1, false) => H1,
            (Protocol::Http2, false) => H2,
            (Protocol::Http1, true) => H1_TLS,
            (Protocol::Http2, true) => H2_TLS,
        };
        let plain = |to: Pod, process: Option<u32>| -> anyhow::Result<Way> {
            let to = SocketAddr::new(lab.address(to)?, port);
            let client = lab.netns(PLAIN_CLIENT);
            Ok(Way { client, to, protocol, is_tls, routes, proxy: process, tunnels: Vec::new() })
        };
        match proxy {
            Proxy::Direct => plain(PLAIN_SERVER, None),
            Proxy::Envoy | Proxy::EnvoyTls => {
                // Only its name and namespace matter here: where it runs was settled when it was made.
                let pod = envoy_pod(routes);
                plain(pod, Some(lab.process(pod, "envoy")?))
            }
            Proxy::Ambit => {
                let vip = self.vips.iter().find(|(r, _)| *r == routes).map(|(_, vip)| *vip);
                let vip = vip.ok_or_else(|| anyhow!("there is no service with {}", routes.title()))?;
                let port = match protocol {
                    Protocol::Http1 => SERVICE_H1,
                    Protocol::Http2 => SERVICE_H2,
                };
                let proxy = Some(lab.waypoint(&format!("{}/waypoint", routes.name()))?.pid);
                let tunnels = vec![lab.ztunnel("node1")?, lab.ztunnel("node2")?];
                let (client, to) = (lab.netns(MESH_CLIENT), SocketAddr::new(vip, port));
                Ok(Way { client, to, protocol, is_tls, routes, proxy, tunnels })
            }
        }
    }

    /// Waits until the last route is answered and a path without a route is not: a proxy that does not know its
    /// routes yet would answer both alike.
    fn until_in_force(&self, way: &Way, stop: &Stop) -> anyhow::Result<()> {
        let end = now() + PATIENCE;
        loop {
            let last = status(way, &path(way.routes.count() - 1), stop)?;
            let none = status(way, "/none", stop)?;
            if (last.as_str(), none.as_str()) == ("200", "404") {
                return Ok(());
            }
            if now() > end {
                let routes = way.routes.title();
                bail!("{} with {routes} answers {last} where 200 is due, {none} where 404 is", way.to);
            }
            stop.pause(LOOK_AGAIN)?;
        }
    }
}

/// The status of one request, `000` without an answer.
fn status(way: &Way, path: &str, stop: &Stop) -> anyhow::Result<String> {
    let (url, to) = (way.url(path), format!("::{}", way.to));
    let argv = ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", "--connect-to", &to, &url];
    Ok(child::run(stop, Some(&way.client), &argv, Duration::from_secs(10))?.stdout.trim().to_owned())
}

fn host(routes: Routes) -> String {
    format!("web.{}.svc.cluster.local", routes.name())
}

fn envoy_pod(routes: Routes) -> Pod {
    let name = match routes {
        Routes::One => "envoy-1",
        Routes::Hundred => "envoy-100",
        Routes::TenThousand => "envoy-10000",
    };
    Pod { namespace: "plain", name, node: "node1" }
}

fn server_pod(routes: Routes) -> Pod {
    Pod { namespace: routes.name(), name: "web", node: "node2" }
}

fn certificate(lab: &Lab, stop: &Stop) -> anyhow::Result<Files> {
    let file = |name: &str| lab.folder().join(name).display().to_string();
    let files = Files { certificate: file("bench.pem"), key: file("bench.key") };
    let argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "7",
        "-subj",
        "/CN=bench",
        "-keyout",
        &files.key,
        "-out",
        &files.certificate,
    ];
    let made = child::run(stop, None, &argv, Duration::from_secs(30));
    made.context("making a certificate")?.ok("openssl req")?;
    Ok(files)
}

/// nginx's servers: every path is answered alike, from memory.
fn servers(files: &Files) -> String {
    let body = "a".repeat(BODY_BYTES);
    let tls = format!(
        "ssl_protocols TLSv1.3;\n    ssl_certificate {};\n    ssl_certificate_key {};",
        files.certificate, files.key
    );
    let server = |port: u16, words: &str, more: &str| {
        format!(
            "  server {{\n    listen {port} {words} reuseport backlog=4096;\n    {more}\n    \
             location / {{ return 200 '{body}'; }}\n  }}\n"
        )
    };
    [
        server(H1, "", ""),
        server(H2, "http2", ""),
        server(H1_TLS, "ssl", &tls),
        server(H2_TLS, "ssl http2", &tls),
    ]
    .concat()
}

/// Everything but routes and Envoys.
fn first_objects(server: &str, routes: &[Routes]) -> Vec<Value> {
    let serving = |at: &Pod| pod(at, json!([nginx(server, H1)]));
    let mut objects = vec![namespace("plain", false), namespace("mesh", true), serving(&PLAIN_SERVER)];
    objects.extend([PLAIN_CLIENT, MESH_CLIENT].iter().map(|p| pod(p, json!([{"name": "client"}]))));
    for routes in routes {
        let mut own = namespace(routes.name(), true);
        own["metadata"]["labels"]["istio.io/use-waypoint"] = json!("waypoint");
        objects.extend([own, gateway(*routes), service(*routes), serving(&server_pod(*routes))]);
    }
    objects
}

fn gateway(routes: Routes) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "waypoint", "namespace": routes.name(), "labels": {"istio.io/waypoint-for": "service"},
        },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

fn service(routes: Routes) -> Value {
    let port = |name: &str, port: u16, target: u16, protocol: &str| json!({"name": name, "port": port, "targetPort": target, "appProtocol": protocol});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": routes.name()},
        "spec": {
            "selector": {"app": "web"},
            "ports": [
                port("h1", SERVICE_H1, H1, "http"), port("h2", SERVICE_H2, H2, "kubernetes.io/h2c"),
            ],
        },
    })
}

/// HTTPRoutes with one rule for each path, all to the service itself, on both of its ports.
fn route_objects(routes: Routes) -> Vec<Value> {
    let mut objects = Vec::new();
    for (protocol, port) in [("h1", SERVICE_H1), ("h2", SERVICE_H2)] {
        let numbers: Vec<usize> = (0..routes.count()).collect();
        for (at, numbers) in numbers.chunks(RULES_OF_ROUTE).enumerate() {
            let rule = |n: &usize| {
                json!({
                    "matches": [{"path": {"type": "Exact", "value": path(*n)}}],
                    "backendRefs": [{"name": "web", "port": port}],
                })
            };
            let rules: Vec<Value> = numbers.iter().map(rule).collect();
            let parent = json!({"group": "", "kind": "Service", "name": "web", "port": port});
            objects.push(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": format!("{protocol}-{at:03}"), "namespace": routes.name()},
                "spec": {"parentRefs": [parent], "rules": rules},
            }));
        }
    }
    objects
}

fn vip(lab: &Lab, routes: Routes) -> anyhow::Result<IpAddr> {
    let args = ["lab", "get", "service", "web", "-n", routes.name(), "-o", "json"];
    let text = lab.ambit(&args)?.ok("ambit lab get service")?;
    let object: Value = serde_json::from_str(&text).context("reading ambit lab get service")?;
    let addresses = object["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let mut addresses = addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
    addresses
        .find(IpAddr::is_ipv4)
        .ok_or_else(|| anyhow!("service {}/web has no IPv4 address", routes.name()))
}

/// An Envoy for each number of routes, on the node where the waypoint is.
fn envoys(lab: &Lab, envoy: &Path, files: &Files, all: &[Routes]) -> anyhow::Result<Vec<Value>> {
    let server = lab.address(PLAIN_SERVER)?;
    let object = |routes: &Routes| {
        let at = envoy_pod(*routes);
        let config = envoy::config(server, *routes, files).to_string();
        let config = lab.file(&format!("{}.json", at.name), &config)?;
        let program = envoy.display().to_string();
        let command = [
            program.as_str(),
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "-c",
            &config,
        ];
        let mut object = pod(&at, json!([container("envoy", &command, H1, true)]));
        object["spec"]["nodeName"] = json!(lab.waypoint(&format!("{}/waypoint", routes.name()))?.node);
        Ok(object)
    };
    all.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(routes: Routes) -> Way {
        let (client, to) = ("c".to_owned(), SocketAddr::from(([10, 0, 0, 1], 80)));
        let (protocol, tunnels) = (Protocol::Http1, Vec::new());
        Way { client, to, protocol, is_tls: false, routes, proxy: None, tunnels }
    }

    #[test]
    fn a_run_asks_for_paths_all_over_the_table_the_last_among_them() {
        for (routes, count) in [(Routes::One, 1), (Routes::Hundred, 100), (Routes::TenThousand, 100)] {
            let urls = way(routes).urls();
            assert_eq!(urls.lines().count(), count, "{}", routes.name());
            let last = format!("http://{}{}", host(routes), path(routes.count() - 1));
            assert_eq!(urls.lines().last(), Some(last.as_str()));
        }
    }

    #[test]
    fn each_path_has_one_rule_on_each_port() {
        for routes in Routes::ALL {
            let objects = route_objects(routes);
            let rules = objects.iter().flat_map(|o| o["spec"]["rules"].as_array().into_iter().flatten());
            assert_eq!(rules.count(), 2 * routes.count());
            assert!(objects.iter().all(|o| o["spec"]["rules"].as_array().is_some_and(|r| r.len() <= 16)));
        }
    }
}
