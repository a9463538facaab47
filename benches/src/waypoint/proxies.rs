//! Who is compared at a waypoint's place, with which load, by which numbers. Values only.

use std::collections::BTreeMap;

/// Who stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    /// Nobody: the ceiling.
    Direct,
    /// Envoy with one worker, plaintext on both sides.
    Envoy,
    /// The same Envoy, TLS on both sides: what cryptography alone costs it.
    EnvoyTls,
    /// Ambit's waypoint with one worker, between two ztunnels: mutual TLS on both sides.
    Ambit,
}

impl Proxy {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Envoy, Self::EnvoyTls, Self::Ambit];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Envoy => "envoy",
            Self::EnvoyTls => "envoy-tls",
            Self::Ambit => "ambit-waypoint",
        }
    }

    /// What heads its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Envoy => "Envoy",
            Self::EnvoyTls => "Envoy TLS",
            Self::Ambit => "Ambit",
        }
    }

    /// Whether it runs with that many routes: where routes make no difference, once is enough.
    pub(crate) fn runs_with(self, routes: Routes) -> bool {
        match self {
            Self::Direct | Self::EnvoyTls => routes == Routes::One,
            Self::Envoy | Self::Ambit => true,
        }
    }

    /// Whether it has a process whose memory is its own figure.
    pub(crate) fn has_memory(self) -> bool {
        match self {
            Self::Direct | Self::EnvoyTls => false,
            Self::Envoy | Self::Ambit => true,
        }
    }
}

/// What client, proxy and server speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// HTTP/1.1 on kept connections, no pipelining.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    /// How rows name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// How many routes the service has, each with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Routes {
    One,
    Hundred,
    TenThousand,
}

impl Routes {
    pub(crate) const ALL: [Self; 3] = [Self::One, Self::Hundred, Self::TenThousand];

    /// The number.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Hundred => 100,
            Self::TenThousand => 10_000,
        }
    }

    /// Its word on the command line, and the namespace of its service.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "routes-1",
            Self::Hundred => "routes-100",
            Self::TenThousand => "routes-10000",
        }
    }

    /// How rows name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::One => "1 route",
            Self::Hundred => "100 routes",
            Self::TenThousand => "10,000 routes",
        }
    }
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// At one rate, the same for all: latency, and CPU time for equal work.
    FixedRate,
    /// As many as get through.
    Saturation,
}

impl Load {
    pub(crate) const ALL: [Self; 2] = [Self::FixedRate, Self::Saturation];

    /// Its word on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FixedRate => "fixed-rate",
            Self::Saturation => "saturation",
        }
    }

    /// How rows name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::FixedRate => "fixed rate",
            Self::Saturation => "saturation",
        }
    }

    /// What one run yields, in the order of the rows. Closed loops tell nothing of latency.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::FixedRate => &[
                Metric::P50,
                Metric::P99,
                Metric::PerCpuSecond,
                Metric::ProxyEach,
                Metric::TunnelsEach,
                Metric::MachineEach,
            ],
            Self::Saturation => &[
                Metric::PerSecond,
                Metric::PerCpuSecond,
                Metric::ProxyEach,
                Metric::TunnelsEach,
                Metric::MachineEach,
            ],
        }
    }
}

/// One number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Answered requests a second.
    PerSecond,
    /// Median latency.
    P50,
    /// 99th percentile of latency.
    P99,
    /// Requests for each CPU-second of the proxy's own process.
    PerCpuSecond,
    /// CPU time of the proxy's own process for each request.
    ProxyEach,
    /// CPU time of both ztunnels for each request; only Ambit has them.
    TunnelsEach,
    /// Busy time of the machine for each request, load generator and server included.
    MachineEach,
}

impl Metric {
    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per_s",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::PerCpuSecond => "per_proxy_cpu_s",
            Self::ProxyEach => "proxy_cpu_us_each",
            Self::TunnelsEach => "ztunnels_cpu_us_each",
            Self::MachineEach => "machine_cpu_us_each",
        }
    }

    /// How its row is called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PerSecond => "requests/s",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::PerCpuSecond => "requests/CPU-s of the proxy",
            Self::ProxyEach => "CPU us each, proxy",
            Self::TunnelsEach => "CPU us each, both ztunnels",
            Self::MachineEach => "CPU us each, machine",
        }
    }
}

/// The numbers of one run.
pub(crate) type Values = BTreeMap<Metric, f64>;

/// What was asked for, in the order in which it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub loads: Vec<Load>,
    pub protocols: Vec<Protocol>,
    pub routes: Vec<Routes>,
    pub proxies: Vec<Proxy>,
}

/// The word that asks for everything here.
const ALL_OF_IT: &str = "waypoint";

/// Every word that is understood here.
pub(crate) fn words() -> Vec<&'static str> {
    let mut words = vec![ALL_OF_IT];
    words.extend(Load::ALL.map(Load::name));
    words.extend(Protocol::ALL.map(Protocol::name));
    words.extend(Routes::ALL.map(Routes::name));
    words.extend(Proxy::ALL.map(Proxy::name));
    words
}

/// Reads words that are all of [`words()`]: those of one kind add up, a kind without a word is not filtered.
pub(crate) fn select(words: &[&str]) -> Selection {
    Selection {
        loads: chosen(&Load::ALL, words, Load::name),
        protocols: chosen(&Protocol::ALL, words, Protocol::name),
        routes: chosen(&Routes::ALL, words, Routes::name),
        proxies: chosen(&Proxy::ALL, words, Proxy::name),
    }
}

fn chosen<T: Copy>(all: &[T], words: &[&str], name: fn(T) -> &'static str) -> Vec<T> {
    let named: Vec<T> = all.iter().copied().filter(|one| words.contains(&name(*one))).collect();
    if named.is_empty() { all.to_vec() } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_kind_add_up_and_kinds_narrow_each_other() {
        let all = select(&["waypoint"]);
        let counts = (all.loads.len(), all.protocols.len(), all.routes.len(), all.proxies.len());
        assert_eq!(counts, (2, 2, 3, 4));
        let some = select(&["http2", "routes-1", "routes-100", "envoy", "ambit-waypoint"]);
        assert_eq!(some.protocols, [Protocol::Http2]);
        assert_eq!(some.routes, [Routes::One, Routes::Hundred]);
        assert_eq!(some.proxies, [Proxy::Envoy, Proxy::Ambit]);
        assert_eq!(some.loads.len(), 2);
    }
}
