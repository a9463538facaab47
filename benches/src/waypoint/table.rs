//! The waypoint's results as text and for machines: medians, ratios, slopes, and the aims beside what was reached.
//! Pure; judges nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::proxies::{Load, Metric, Protocol, Proxy, Routes};
use super::{Cell, Memory, Results};
use crate::table::{Series, aligned, dash, number, shown};

/// What is aimed at: requests for each CPU-second of the proxy, against Envoy.
const AIM_PER_CPU_SECOND: f64 = 1.2;
/// What is aimed at: resident memory, against Envoy.
const AIM_MEMORY: f64 = 1.0 / 3.0;
/// What is aimed at: CPU time of a request with the most routes, against one route.
const AIM_SLOPE: f64 = 1.0;

/// What Ambit is held against.
const CONTROLS: [Proxy; 2] = [Proxy::Envoy, Proxy::EnvoyTls];

fn series(cell: &Cell, metric: Metric) -> BTreeMap<Proxy, Series> {
    let of = |proxy: Proxy| {
        Series::of(cell.rounds.iter().filter_map(|r| r.get(&proxy)?.get(&metric).copied()).collect())
    };
    cell.proxies.iter().filter_map(|proxy| Some((*proxy, of(*proxy)?))).collect()
}

fn ratio(series: &BTreeMap<Proxy, Series>, of: Proxy, to: Proxy) -> Option<f64> {
    let (of, to) = (series.get(&of)?.median, series.get(&to)?.median);
    (to != 0.0).then_some(of / to)
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| format!("{ratio:.2}"))
}

/// Everything for people.
pub(crate) fn text(results: &Results) -> String {
    let mut lines = vec![heading("at the waypoint's place")];
    for cell in &results.cells {
        lines.extend(cell.load.metrics().iter().filter_map(|metric| row(cell, *metric)));
    }
    if !results.memory.is_empty() {
        lines.extend(memory_rows(&results.memory));
    }
    let mut text = aligned(&lines);
    text.push('\n');
    for line in slopes(&results.cells).iter().map(|s| s.text()).chain(aims(results)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn heading(first: &str) -> Vec<String> {
    let mut line = vec![first.to_owned()];
    line.extend(Proxy::ALL.map(|p| p.title().to_owned()));
    line.extend(CONTROLS.map(|to| format!("{}/{}", Proxy::Ambit.title(), to.title())));
    line
}

fn row(cell: &Cell, metric: Metric) -> Option<Vec<String>> {
    let series = series(cell, metric);
    if series.is_empty() {
        return None;
    }
    let (protocol, routes, load) = (cell.protocol.title(), cell.routes.title(), cell.load.title());
    let mut line = vec![format!("{protocol}, {routes}, {load}: {}", metric.title())];
    line.extend(Proxy::ALL.map(|p| series.get(&p).map_or_else(dash, shown)));
    line.extend(CONTROLS.map(|to| ratio_text(ratio(&series, Proxy::Ambit, to))));
    Some(line)
}

fn memory_rows(memory: &[Memory]) -> Vec<Vec<String>> {
    let row = |routes: Routes, what: &str, value: fn(&Memory) -> Option<f64>| {
        let of = |p: Proxy| memory.iter().find(|m| m.routes == routes && m.proxy == p).and_then(value);
        let mut line = vec![format!("memory, {}: RSS MiB, {what}", routes.title())];
        line.extend(Proxy::ALL.map(|p| of(p).map_or_else(dash, number)));
        line.extend(CONTROLS.map(|to| ratio_text(of(Proxy::Ambit).zip(of(to)).map(|(a, b)| a / b))));
        line
    };
    let present = |routes: &Routes| memory.iter().any(|m| m.routes == *routes);
    let rows = Routes::ALL.into_iter().filter(present);
    rows.flat_map(|r| [row(r, "idle", |m| Some(m.idle)), row(r, "after load", |m| m.after)]).collect()
}

/// How the CPU time of a request grows from the fewest to the most routes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slope {
    protocol: Protocol,
    load: Load,
    proxy: Proxy,
    few: Routes,
    many: Routes,
    ratio: f64,
}

impl Slope {
    fn text(&self) -> String {
        let Self { protocol, load, proxy, few, many, ratio } = self;
        format!(
            "slope: {} of {}, {}, {}: {ratio:.2} times from {} to {}",
            "CPU each at the proxy",
            proxy.title(),
            protocol.title(),
            load.title(),
            few.title(),
            many.title()
        )
    }
}

fn slopes(cells: &[Cell]) -> Vec<Slope> {
    let mut all = Vec::new();
    for load in Load::ALL {
        for protocol in Protocol::ALL {
            let mut of: Vec<&Cell> =
                cells.iter().filter(|c| c.load == load && c.protocol == protocol).collect();
            of.sort_by_key(|c| c.routes);
            let (Some(few), Some(many)) = (of.first(), of.last()) else { continue };
            if few.routes == many.routes {
                continue;
            }
            let (low, high) = (series(few, Metric::ProxyEach), series(many, Metric::ProxyEach));
            for proxy in Proxy::ALL {
                let Some((low, high)) = low.get(&proxy).zip(high.get(&proxy)) else { continue };
                let ratio = high.median / low.median;
                all.push(Slope { protocol, load, proxy, few: few.routes, many: many.routes, ratio });
            }
        }
    }
    all
}

/// The aims, each with what this run reached: told, never asserted.
fn aims(results: &Results) -> Vec<String> {
    let reached = |values: Vec<f64>| {
        let ends = Series::of(values);
        ends.map_or_else(|| "not measured".to_owned(), |s| format!("{:.2} to {:.2} here", s.min, s.max))
    };
    let cells = results.cells.iter();
    let per_cpu = cells.filter_map(|c| ratio(&series(c, Metric::PerCpuSecond), Proxy::Ambit, Proxy::Envoy));
    let after = |routes: Routes, proxy: Proxy| {
        results.memory.iter().find(|m| m.routes == routes && m.proxy == proxy)?.after
    };
    let memory = Routes::ALL
        .into_iter()
        .filter_map(|routes| Some(after(routes, Proxy::Ambit)? / after(routes, Proxy::Envoy)?));
    let slopes = slopes(&results.cells).into_iter().filter(|s| s.proxy == Proxy::Ambit).map(|s| s.ratio);
    vec![
        format!(
            "aim: {AIM_PER_CPU_SECOND} times Envoy's requests/CPU-s at the proxy or more; {}",
            reached(per_cpu.collect())
        ),
        format!("aim: {AIM_MEMORY:.2} times Envoy's memory after load or less; {}", reached(memory.collect())),
        format!("aim: {AIM_SLOPE:.1} times the CPU each with the most routes; {}", reached(slopes.collect())),
        "Ambit's waypoint does mutual TLS on both sides, Envoy none, Envoy TLS as much; the ztunnels are counted apart"
            .to_owned(),
    ]
}

/// Everything for machines.
pub(crate) fn json(results: &Results) -> Value {
    let cells: Vec<Value> = results.cells.iter().flat_map(cell_json).collect();
    let memory: Vec<Value> = results
        .memory
        .iter()
        .map(|m| {
            json!({
                "routes": m.routes.count(), "proxy": m.proxy.name(), "idle_mib": m.idle, "after_load_mib": m.after,
            })
        })
        .collect();
    let slopes: Vec<Value> = slopes(&results.cells)
        .iter()
        .map(|s| {
            json!({
                "protocol": s.protocol.name(), "load": s.load.name(), "proxy": s.proxy.name(),
                "fromRoutes": s.few.count(), "toRoutes": s.many.count(), "proxy_cpu_ratio": s.ratio,
            })
        })
        .collect();
    json!({
        "ratePerSecond": results.rate, "results": cells, "memory": memory, "slopes": slopes,
        "aims": {
            "per_proxy_cpu_s_against_envoy": AIM_PER_CPU_SECOND, "memory_against_envoy": AIM_MEMORY,
            "slope": AIM_SLOPE,
        },
    })
}

fn cell_json(cell: &Cell) -> Vec<Value> {
    let metric = |metric: &Metric| {
        let series = series(cell, *metric);
        let proxies: serde_json::Map<String, Value> = series
            .iter()
            .map(|(proxy, s)| {
                let value = json!({"median": s.median, "min": s.min, "max": s.max, "samples": s.samples});
                (proxy.name().to_owned(), value)
            })
            .collect();
        let ratios: serde_json::Map<String, Value> = CONTROLS
            .iter()
            .filter_map(|to| {
                let ratio = ratio(&series, Proxy::Ambit, *to)?;
                Some((format!("{}/{}", Proxy::Ambit.name(), to.name()), json!(ratio)))
            })
            .collect();
        json!({
            "protocol": cell.protocol.name(), "routes": cell.routes.count(), "load": cell.load.name(),
            "otherLoad": cell.other_load, "metric": metric.name(), "proxies": proxies, "ratios": ratios,
        })
    };
    cell.load.metrics().iter().map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waypoint::proxies::Values;

    fn cell(routes: Routes, envoy: f64, ambit: f64) -> Cell {
        let values =
            |each: f64| Values::from([(Metric::ProxyEach, each), (Metric::PerCpuSecond, 1e6 / each)]);
        let round = BTreeMap::from([(Proxy::Envoy, values(envoy)), (Proxy::Ambit, values(ambit))]);
        Cell {
            load: Load::Saturation,
            protocol: Protocol::Http1,
            routes,
            proxies: vec![Proxy::Envoy, Proxy::Ambit],
            rounds: vec![round],
            other_load: 0.0,
        }
    }

    #[test]
    fn ratios_slopes_and_aims_stand_below_the_rows() {
        let cells = vec![cell(Routes::One, 40.0, 20.0), cell(Routes::TenThousand, 80.0, 20.0)];
        let memory = Memory { routes: Routes::One, proxy: Proxy::Envoy, idle: 60.0, after: Some(90.0) };
        let ours = Memory { proxy: Proxy::Ambit, idle: 10.0, after: Some(30.0), ..memory.clone() };
        let text = text(&Results { rate: 1, cells, memory: vec![memory, ours] });
        for wanted in [
            "HTTP/1.1, 1 route, saturation: requests/CPU-s of the proxy",
            "of Envoy, HTTP/1.1, saturation: 2.00 times from 1 route to 10,000 routes",
            "of Ambit, HTTP/1.1, saturation: 1.00 times",
            "requests/CPU-s at the proxy or more; 2.00 to 4.00 here",
            "memory after load or less; 0.33 to 0.33 here",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }
}
