//! Who may import whom: the single source of the layer table.
//!
//! `tidy` holds every manifest against it, and the table in ARCHITECTURE.md is printed from it. It says nothing about
//! modules inside a crate.

use std::fmt::Write;

/// One workspace crate and its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Package name.
    pub package: &'static str,
    /// Which layer it belongs to.
    pub layer: Layer,
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// Workspace packages it may depend on.
    pub may_import: &'static [&'static str],
    /// Which outside crates it may use.
    pub outside: Outside,
}

/// The layers, lowest first. Imports go down, or along an arrow that the table names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Shared vocabulary.
    Words,
    /// Decisions as functions of their arguments.
    Pure,
    /// Bytes, without sockets.
    Wire,
    /// Sockets, files, clock, tasks.
    Io,
    /// What runs.
    Program,
    /// Tests, benchmarks and tasks: may import anything, nothing imports them.
    Proof,
}

/// The outside crates a package may use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outside {
    /// Only these.
    Only(&'static [&'static str]),
    /// Anything but these lists, each with the reason the finding gives.
    AllBut(&'static [Ban]),
}

/// Outside crates that have no place in a package, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ban {
    /// The crates.
    pub crates: &'static [&'static str],
    /// Completes "forbidden because".
    pub because: &'static str,
    /// The short name printed in the table.
    pub label: &'static str,
    /// Whether reaching one through another outside crate is as bad as naming it.
    pub transitive: bool,
}

const RUNTIMES: Ban = Ban {
    crates: &[
        "tokio",
        "tokio-util",
        "tokio-stream",
        "hyper",
        "hyper-util",
        "tonic",
        "tower",
        "h2",
        "mio",
        "kube",
    ],
    because: "a decision is a synchronous function of its arguments",
    label: "async runtimes, HTTP stacks",
    transitive: true,
};
const SOCKETS: Ban = Ban {
    crates: &[
        "socket2",
        "nix",
        "rustix",
        "libc",
        "rtnetlink",
        "inotify",
        "signal-hook",
        "rustls",
        "tokio-rustls",
    ],
    because: "sockets, files and TLS belong to the I/O layer",
    label: "sockets, TLS",
    transitive: false,
};
const AMBIENT_INPUTS: Ban = Ban {
    crates: &["rand", "getrandom", "fastrand", "chrono", "time", "jiff"],
    because: "time and randomness are arguments",
    label: "clock, randomness",
    transitive: false,
};
const PROTOBUF: Ban = Ban {
    crates: &["prost", "prost-types"],
    because: "decisions speak the domain's types, not the wire's",
    label: "protobuf",
    transitive: false,
};
const KUBERNETES_TYPES: Ban = Ban {
    crates: &["k8s-openapi"],
    because: "objects are reduced to small inputs first, so that this crate builds and tests in seconds",
    label: "k8s-openapi",
    transitive: true,
};
const KUBERNETES_CLIENT: Ban = Ban {
    crates: &["kube", "kube-client", "kube-runtime"],
    because: "only the control plane, the node agent and the command line speak to a Kubernetes API server",
    label: "kube",
    transitive: false,
};
const TLS: Ban = Ban {
    crates: &["rustls", "tokio-rustls", "rcgen", "aws-lc-rs"],
    because: "the one process with rights in the host's namespaces terminates no TLS",
    label: "rustls",
    transitive: false,
};

const PURE: &[Ban] = &[RUNTIMES, SOCKETS, AMBIENT_INPUTS, PROTOBUF];
const PURE_WITHOUT_KUBERNETES: &[Ban] = &[RUNTIMES, SOCKETS, AMBIENT_INPUTS, PROTOBUF, KUBERNETES_TYPES];
const SANS_IO: &[Ban] = &[RUNTIMES, SOCKETS, AMBIENT_INPUTS, KUBERNETES_TYPES];
const NO_CLIENT: &[Ban] = &[KUBERNETES_CLIENT];

/// The table. A crate that is not here does not belong to the workspace.
pub(crate) const TABLE: &[Place] = &[
    Place {
        package: "ambit-types",
        layer: Layer::Words,
        purpose: "identities, names, addresses, workloads, services, reason codes",
        may_import: &[],
        outside: Outside::Only(&["ipnet", "serde", "thiserror"]),
    },
    Place {
        package: "ambit-policy",
        layer: Layer::Pure,
        purpose: "may this peer connect, may this request pass, and why",
        may_import: &["ambit-types"],
        outside: Outside::AllBut(PURE_WITHOUT_KUBERNETES),
    },
    Place {
        package: "ambit-route",
        layer: Layer::Pure,
        purpose: "which rule and backend a request has, and what follows: filters, retries, balancing, limits",
        may_import: &["ambit-types"],
        outside: Outside::AllBut(PURE_WITHOUT_KUBERNETES),
    },
    Place {
        package: "ambit-state",
        layer: Layer::Pure,
        purpose: "a node's and a waypoint's view of the mesh; plans for connections",
        may_import: &["ambit-types", "ambit-policy", "ambit-route"],
        outside: Outside::AllBut(PURE_WITHOUT_KUBERNETES),
    },
    Place {
        package: "ambit-control",
        layer: Layer::Pure,
        purpose: "configuration compiled into workloads, services, policies, and what waypoints need",
        // The manifests' reader is for tests: tables of manifests through both, without a program between them.
        may_import: &["ambit-types", "ambit-policy", "ambit-route", "ambit-manifest"],
        outside: Outside::AllBut(PURE_WITHOUT_KUBERNETES),
    },
    Place {
        package: "ambit-explain",
        layer: Layer::Pure,
        purpose: "what happens to a connection or request and why: the deciding functions asked one after the other",
        // The control plane's index, for compiled worlds.
        may_import: &["ambit-types", "ambit-policy", "ambit-route", "ambit-state", "ambit-control"],
        outside: Outside::AllBut(PURE_WITHOUT_KUBERNETES),
    },
    Place {
        package: "ambit-manifest",
        layer: Layer::Pure,
        purpose: "Kubernetes YAML to typed, located objects",
        may_import: &["ambit-types"],
        outside: Outside::AllBut(PURE),
    },
    Place {
        package: "ambit-ingest",
        layer: Layer::Pure,
        purpose: "manifest objects reduced to what the control plane's index reads",
        may_import: &["ambit-types", "ambit-policy", "ambit-control", "ambit-manifest"],
        outside: Outside::AllBut(PURE),
    },
    Place {
        package: "ambit-xds",
        layer: Layer::Wire,
        purpose: "xDS, CA and ZDS messages, sans-I/O client and server",
        may_import: &["ambit-types", "ambit-policy", "ambit-route"],
        outside: Outside::AllBut(SANS_IO),
    },
    Place {
        package: "ambit-hbone",
        layer: Layer::Wire,
        purpose: "CONNECT requests and answers, baggage, the tunnel pool",
        may_import: &["ambit-types"],
        outside: Outside::AllBut(SANS_IO),
    },
    Place {
        package: "ambit-runtime",
        layer: Layer::Io,
        purpose: "clock, tasks, drain, logs, metrics, admin sockets",
        may_import: &["ambit-types"],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "ambit-folder",
        layer: Layer::Io,
        purpose: "a folder of manifests as a small object store",
        may_import: &["ambit-types", "ambit-manifest", "ambit-runtime"],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "ambit-kube",
        layer: Layer::Io,
        purpose: "a Kubernetes API server as a source of objects and a place to write them",
        may_import: &["ambit-types", "ambit-manifest", "ambit-runtime"],
        outside: Outside::AllBut(&[]),
    },
    Place {
        package: "ambit-net",
        layer: Layer::Io,
        purpose: "sockets, namespaces, TLS, tunnels, relays, gRPC",
        may_import: &["ambit-types", "ambit-hbone", "ambit-xds", "ambit-runtime"],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "ztunnel",
        layer: Layer::Program,
        purpose: "the node's L4 proxy",
        may_import: &[
            "ambit-types",
            "ambit-policy",
            "ambit-state",
            "ambit-explain",
            "ambit-xds",
            "ambit-hbone",
            "ambit-net",
            "ambit-runtime",
        ],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "waypoint",
        layer: Layer::Program,
        purpose: "the L7 proxy of services that ask for one",
        may_import: &[
            "ambit-types",
            "ambit-policy",
            "ambit-route",
            "ambit-state",
            "ambit-explain",
            "ambit-xds",
            "ambit-hbone",
            "ambit-net",
            "ambit-runtime",
        ],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "istiod-lite",
        layer: Layer::Program,
        purpose: "the control plane and CA",
        may_import: &[
            "ambit-types",
            "ambit-policy",
            "ambit-control",
            "ambit-explain",
            "ambit-manifest",
            "ambit-ingest",
            "ambit-folder",
            "ambit-kube",
            "ambit-xds",
            "ambit-net",
            "ambit-runtime",
        ],
        outside: Outside::AllBut(&[]),
    },
    Place {
        package: "ambit-cni",
        layer: Layer::Program,
        purpose: "the node agent",
        may_import: &[
            "ambit-types",
            "ambit-manifest",
            "ambit-folder",
            "ambit-kube",
            "ambit-xds",
            "ambit-net",
            "ambit-runtime",
        ],
        outside: Outside::AllBut(&[TLS]),
    },
    Place {
        package: "ambit-lab",
        layer: Layer::Program,
        purpose: "nodes and pods out of network namespaces",
        may_import: &[
            "ambit-types",
            "ambit-manifest",
            "ambit-folder",
            "ambit-kube",
            "ambit-net",
            "ambit-runtime",
        ],
        // The lab is the kubelet of its nodes.
        outside: Outside::AllBut(&[]),
    },
    Place {
        package: "ambit",
        layer: Layer::Program,
        purpose: "the command line",
        may_import: &[
            "ambit-types",
            "ambit-policy",
            "ambit-state",
            "ambit-control",
            "ambit-explain",
            "ambit-manifest",
            "ambit-ingest",
            "ambit-folder",
            "ambit-kube",
            "ambit-xds",
            "ambit-net",
            "ambit-runtime",
            "ambit-lab",
        ],
        outside: Outside::AllBut(&[]),
    },
    Place {
        package: "ambit-tests",
        layer: Layer::Proof,
        purpose: "pipeline, loopback and namespace tests",
        may_import: &[],
        outside: Outside::AllBut(&[]),
    },
    Place {
        package: "ambit-benches",
        layer: Layer::Proof,
        purpose: "benchmarks",
        may_import: &[],
        outside: Outside::AllBut(NO_CLIENT),
    },
    Place {
        package: "xtask",
        layer: Layer::Proof,
        purpose: "these checks",
        may_import: &[],
        outside: Outside::AllBut(NO_CLIENT),
    },
];

/// Modules of ambit-net that carry traffic; only these packages may name them.
pub(crate) const TRAFFIC_MODULES: &[&str] = &["pool_driver", "relay", "tunnel"];

/// Folders whose code may name [`TRAFFIC_MODULES`].
pub(crate) const TRAFFIC_USERS: &[&str] =
    &["crates/ambit-net/", "ztunnel/", "waypoint/", "tests/", "benches/"];

/// The place of a package.
pub(crate) fn place(package: &str) -> Option<&'static Place> {
    TABLE.iter().find(|p| p.package == package)
}

impl Layer {
    /// The name used in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Words => "L0 words",
            Self::Pure => "L1 pure",
            Self::Wire => "L2 wire",
            Self::Io => "L3 I/O",
            Self::Program => "L4 programs",
            Self::Proof => "proof",
        }
    }
}

impl Place {
    /// Whether the table lets this package depend on that workspace package.
    pub(crate) fn may_import(&self, other: &str) -> bool {
        let nothing_imports_proof = place(other).is_none_or(|p| p.layer != Layer::Proof);
        nothing_imports_proof && (self.layer == Layer::Proof || self.may_import.contains(&other))
    }
}

/// The table as markdown, highest layer first.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "| layer | crate | is for | may import | may not use |\n| --- | --- | --- | --- | --- |\n",
    );
    for layer in [Layer::Program, Layer::Io, Layer::Wire, Layer::Pure, Layer::Words, Layer::Proof] {
        for place in TABLE.iter().filter(|p| p.layer == layer) {
            let row = format!(
                "| {} | `{}` | {} | {} | {} |",
                layer.name(),
                place.package,
                place.purpose,
                imports(place),
                exclusions(place.outside)
            );
            writeln!(out, "{row}").expect("writing to a String cannot fail");
        }
    }
    out
}

fn imports(place: &Place) -> String {
    if place.layer == Layer::Proof {
        return "anything; nothing imports it".to_owned();
    }
    if place.may_import.is_empty() {
        return "nothing".to_owned();
    }
    place.may_import.iter().map(|name| name.trim_start_matches("ambit-")).collect::<Vec<_>>().join(", ")
}

fn exclusions(outside: Outside) -> String {
    match outside {
        Outside::Only(crates) => format!("anything but {}", crates.join(", ")),
        Outside::AllBut([]) => "–".to_owned(),
        Outside::AllBut(bans) => bans.iter().map(|ban| ban.label).collect::<Vec<_>>().join("; "),
    }
}
