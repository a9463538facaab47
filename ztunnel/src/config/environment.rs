//! What the environment says beside the settings of one variable each: Istio's `ProxyConfig`, families of names, and
//! where we run. Names that nobody knows are left alone; known ones that cannot be honoured are named or refused.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Where Istio's mesh configuration is mounted, from the working directory.
const MESH_FILE: &str = "./etc/istio/config/mesh";
/// Header families, by which of our two callers they are for.
const XDS_HEADER: &str = "XDS_HEADER_";
const CA_HEADER: &str = "CA_HEADER_";

/// What becomes of a setting of other proxies that cannot be honoured here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The program does not start: going on would be less safe than what was asked for, or useless.
    Refused,
    /// It is named in the log, with what is done in place of it.
    Named,
}

/// Such settings: name, the value that asks for nothing more than we do, fate, and what is so in place of it.
const NOT_HONOURED: &[(&str, &str, Fate, &str)] = &[
    (
        "CRL_PATH",
        "",
        Fate::Refused,
        "revocation lists are not read, so certificates would be trusted to their end",
    ),
    ("PROXY_MODE", "shared", Fate::Refused, "pods are always captured in their own namespaces"),
    ("ENABLE_PROXY", "true", Fate::Refused, "the proxy always runs"),
    ("LOCAL_XDS_PATH", "", Fate::Refused, "configuration comes from discovery only"),
    ("LOCAL_XDS", "", Fate::Refused, "configuration comes from discovery only"),
    ("FAKE_CA", "false", Fate::Refused, "certificates come from the CA only"),
    ("PROXY_WORKLOAD_INFO", "", Fate::Named, "pods are named by the node agent"),
    ("TLS12_ENABLED", "false", Fate::Named, "tunnels are TLS 1.3 only"),
    ("COMPLIANCE_POLICY", "pqc", Fate::Refused, "the only policy known is pqc"),
    ("UNSTABLE_ENABLE_SOCKS5", "false", Fate::Named, "there is no SOCKS listener"),
    ("INPOD_PORT_REUSE", "true", Fate::Named, "listeners always share their ports with a successor"),
    ("PREFERED_SERVICE_NAMESPACE", "", Fate::Named, "the client's own namespace is preferred"),
    (
        "ISTIO_META_DNS_CAPTURE",
        "false",
        Fate::Named,
        "nothing listens on 15053; the node agent must not capture DNS",
    ),
    ("ISTIO_META_DNS_PROXY_ADDR", "", Fate::Named, "nothing listens for DNS"),
];

/// Istio's `ProxyConfig`, as far as it concerns ztunnel; the rest of it is for other proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyConfig {
    /// Address of discovery and CA.
    pub discovery_address: Option<String>,
    /// Port of the admin surface on loopback.
    pub proxy_admin_port: Option<u16>,
    /// Port of the metrics.
    pub stats_port: Option<u16>,
    /// Worker threads, 0 for all processors.
    pub concurrency: Option<usize>,
    /// Metadata of the node.
    pub proxy_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MeshConfig {
    default_config: ProxyConfig,
}

/// The environment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A text that is no `ProxyConfig`.
    #[error("reading {place}, which must be YAML of Istio's ProxyConfig")]
    ProxyConfig {
        /// The variable or file.
        place: &'static str,
        /// The parser's answer.
        #[source]
        cause: Box<serde_saphyr::Error>,
    },
    /// A setting that must not be passed over.
    #[error("{name} is set, and cannot be honoured: {instead}; unset it to start without")]
    NotHonoured {
        /// The variable.
        name: &'static str,
        /// What is so in place of it.
        instead: &'static str,
    },
    /// The mesh file is there and cannot be read.
    #[error("reading {MESH_FILE}")]
    MeshFile(#[source] std::io::Error),
}

/// What the environment says. Made once, at start.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Istio's own settings: the mesh file, overridden by `PROXY_CONFIG`.
    pub proxy: ProxyConfig,
    /// Whether this is a pod of a cluster.
    pub in_kubernetes: bool,
    /// More headers for discovery (`XDS_HEADER_*`).
    pub xds_headers: Vec<(String, String)>,
    /// More headers for the CA (`CA_HEADER_*`).
    pub ca_headers: Vec<(String, String)>,
    /// Node metadata as variables say it, `ISTIO_META_*` and `ISTIO_METAJSON_*`, names in full.
    pub metadata: BTreeMap<String, String>,
    /// Whether only post-quantum key exchange may be used (`COMPLIANCE_POLICY=pqc`).
    pub post_quantum_only: bool,
    /// Variables that are set and have no effect, each with what is done in place of it.
    pub without_effect: Vec<(&'static str, &'static str)>,
}

impl Environment {
    /// Reads the variables of this process and the mesh file.
    ///
    /// # Errors
    /// [`EnvironmentError`].
    pub fn read() -> Result<Self, EnvironmentError> {
        let mesh = match std::fs::read_to_string(MESH_FILE) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(EnvironmentError::MeshFile(e)),
        };
        // A name or value that is no text is none of those below.
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::from_variables(variables, mesh.as_deref())
    }

    /// What variables and a mesh file say.
    ///
    /// # Errors
    /// [`EnvironmentError`].
    pub fn from_variables(
        variables: impl Iterator<Item = (String, String)>,
        mesh: Option<&str>,
    ) -> Result<Self, EnvironmentError> {
        let mut environment = Self::default();
        if let Some(text) = mesh {
            environment.proxy = parse::<MeshConfig>(MESH_FILE, text)?.default_config;
        }
        for (name, value) in variables {
            environment.take(name, value)?;
        }
        // The order of variables is the system's.
        environment.xds_headers.sort();
        environment.ca_headers.sort();
        environment.without_effect.sort_unstable();
        Ok(environment)
    }

    fn take(&mut self, name: String, value: String) -> Result<(), EnvironmentError> {
        let known = NOT_HONOURED.iter().find(|(known, ..)| *known == name);
        if let Some((known, same, fate, instead)) = known
            && !value.is_empty()
            && !value.eq_ignore_ascii_case(same)
        {
            match fate {
                Fate::Refused => return Err(EnvironmentError::NotHonoured { name: known, instead }),
                Fate::Named => self.without_effect.push((*known, *instead)),
            }
        }
        if name == "PROXY_CONFIG" {
            self.proxy.override_with(parse("PROXY_CONFIG", &value)?);
        } else if name == "KUBERNETES_SERVICE_HOST" {
            self.in_kubernetes = true;
        } else if name == "COMPLIANCE_POLICY" {
            self.post_quantum_only = value.eq_ignore_ascii_case("pqc");
        } else if let Some(header) = name.strip_prefix(XDS_HEADER) {
            self.xds_headers.push((header.to_owned(), value));
        } else if let Some(header) = name.strip_prefix(CA_HEADER) {
            self.ca_headers.push((header.to_owned(), value));
        } else if name.starts_with("ISTIO_META_") || name.starts_with("ISTIO_METAJSON_") {
            self.metadata.insert(name, value);
        }
        Ok(())
    }

    /// Where discovery and CA are unless their own settings say so.
    pub fn control_plane(&self) -> String {
        let default = match self.in_kubernetes {
            true => "https://istiod.istio-system.svc:15012",
            false => "https://localhost:15012",
        };
        self.proxy.discovery_address.clone().unwrap_or_else(|| default.to_owned())
    }
}

impl ProxyConfig {
    /// Field by field; metadata are merged.
    fn override_with(&mut self, other: Self) {
        self.discovery_address = other.discovery_address.or_else(|| self.discovery_address.take());
        self.proxy_admin_port = other.proxy_admin_port.or(self.proxy_admin_port);
        self.stats_port = other.stats_port.or(self.stats_port);
        self.concurrency = other.concurrency.or(self.concurrency);
        self.proxy_metadata.extend(other.proxy_metadata);
    }
}

fn parse<T: serde::de::DeserializeOwned + Default>(
    place: &'static str,
    text: &str,
) -> Result<T, EnvironmentError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text)
        .map_err(|cause| EnvironmentError::ProxyConfig { place, cause: Box::new(cause) })
}
