//! Medians, spreads and ratios of what was measured, as text. Pure.

use std::collections::BTreeMap;

use crate::contenders::{Contender, Place};
use crate::measures::{Metric, Values};
use crate::run::Cell;

/// What a contender's runs of one metric came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// In the order of the rounds.
    pub samples: Vec<f64>,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Series {
    /// None without samples.
    pub(crate) fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { samples, median, min, max })
    }
}

/// One line of the table: a metric, or what a latency adds over no mesh.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub metric: Metric,
    /// Whether it is what is added over no mesh in the same round.
    pub added: bool,
    pub series: BTreeMap<Contender, Series>,
}

impl Row {
    /// The ratio of two contenders' medians.
    pub(crate) fn ratio(&self, of: Contender, to: Contender) -> Option<f64> {
        let (of, to) = (self.series.get(&of)?.median, self.series.get(&to)?.median);
        (to != 0.0).then_some(of / to)
    }
}

/// The rows of a cell; those without a number are left out.
pub(crate) fn rows(cell: &Cell) -> Vec<Row> {
    let mut rows = Vec::new();
    for metric in cell.measure.metrics() {
        rows.push(row(cell, *metric, false));
        if metric.is_latency() {
            rows.push(row(cell, *metric, true));
        }
    }
    rows.retain(|row| !row.series.is_empty());
    rows
}

fn row(cell: &Cell, metric: Metric, added: bool) -> Row {
    let sample = |round: &BTreeMap<Contender, Values>, contender: Contender| {
        let value = *round.get(&contender)?.get(&metric)?;
        let base = round.get(&Contender::NoMesh).and_then(|values| values.get(&metric));
        if added { Some(value - base?) } else { Some(value) }
    };
    let with_base = |c: &&Contender| !(added && **c == Contender::NoMesh);
    let series = cell.contenders.iter().filter(with_base).filter_map(|contender| {
        let samples = cell.rounds.iter().filter_map(|round| sample(round, *contender)).collect();
        Some((*contender, Series::of(samples)?))
    });
    Row { metric, added, series: series.collect() }
}

/// All tables, one for each place.
pub(crate) fn text(cells: &[Cell]) -> String {
    let tables = Place::ALL.iter().filter_map(|place| {
        let here: Vec<&Cell> = cells.iter().filter(|c| c.place == *place).collect();
        (!here.is_empty()).then(|| place_table(*place, &here))
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn place_table(place: Place, cells: &[&Cell]) -> String {
    let present = |c: &Contender| cells.iter().any(|cell| cell.contenders.contains(c));
    let columns: Vec<Contender> = Contender::ALL.into_iter().filter(present).collect();
    let (controls, ours): (Vec<Contender>, Vec<Contender>) = columns.iter().partition(|c| c.is_control());
    let pairs: Vec<(Contender, Contender)> =
        ours.iter().flat_map(|of| controls.iter().rev().map(|to| (*of, *to))).collect();
    let mut lines = vec![vec![place.title().to_owned()]];
    lines[0].extend(columns.iter().map(|c| c.title().to_owned()));
    lines[0].extend(pairs.iter().map(|(of, to)| format!("{}/{}", of.title(), to.title())));
    for cell in cells {
        for row in rows(cell) {
            let added = if row.added { " added" } else { "" };
            let mut line = vec![format!("{}: {}{added}", cell.measure.title(), row.metric.title())];
            line.extend(columns.iter().map(|c| row.series.get(c).map_or_else(dash, shown)));
            line.extend(
                pairs.iter().map(|(of, to)| row.ratio(*of, *to).map_or_else(dash, |r| format!("{r:.2}"))),
            );
            lines.push(line);
        }
    }
    aligned(&lines)
}

/// What stands for a number that is not there.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// Median, and spread if there is one.
pub(crate) fn shown(series: &Series) -> String {
    if series.samples.len() == 1 {
        return number(series.median);
    }
    format!("{} ({}-{})", number(series.median), number(series.min), number(series.max))
}

/// Three digits or all before the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One run in a line, for progress.
pub(crate) fn line(values: &Values) -> String {
    let parts: Vec<String> = values.iter().map(|(m, v)| format!("{} {}", number(*v), m.title())).collect();
    parts.join(", ")
}

/// Lines of cells as columns.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| lines.iter().filter_map(|l| l.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::Measure;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        for (samples, median) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0), (vec![7.0], 7.0)]
        {
            assert_eq!(Series::of(samples.clone()).expect("samples").median, median, "{samples:?}");
        }
        assert_eq!(Series::of(Vec::new()), None);
    }

    fn latency(rounds: &[[f64; 3]]) -> Cell {
        let contenders = vec![Contender::NoMesh, Contender::Haproxy, Contender::Ambit];
        let round = |values: &[f64; 3]| {
            let each = contenders.iter().zip(values);
            each.map(|(c, v)| (*c, Values::from([(Metric::P50, *v)]))).collect()
        };
        let rounds = rounds.iter().map(round).collect();
        Cell { place: Place::CrossNode, measure: Measure::Requests1, contenders, rounds, other_load: 0.0 }
    }

    #[test]
    fn what_a_latency_adds_is_taken_within_each_round() {
        let rows = rows(&latency(&[[10.0, 30.0, 20.0], [20.0, 40.0, 30.0]]));
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].series[&Contender::Ambit].samples, [10.0, 10.0]);
        assert_eq!(rows[1].ratio(Contender::Ambit, Contender::Haproxy), Some(0.5));
        assert_eq!(rows[1].ratio(Contender::Ambit, Contender::NoMesh), None);
    }

    #[test]
    fn the_table_has_medians_spreads_and_ratios_against_each_control() {
        let text = text(&[latency(&[[10.0, 30.0, 20.0], [20.0, 50.0, 30.0], [10.0, 30.0, 20.0]])]);
        let lines: Vec<&str> = text.lines().collect();
        let heads: Vec<&str> = lines[0].split("  ").filter(|c| !c.is_empty()).map(str::trim).collect();
        assert_eq!(heads, ["cross node", "no mesh", "HAProxy", "Ambit", "Ambit/HAProxy", "Ambit/no mesh"]);
        assert!(lines[1].contains("30.0 (30.0-50.0)") && lines[1].contains("0.67"), "{text}");
        assert!(lines[2].starts_with("requests, 1 connection: p50 us added  -"), "{text}");
    }

    #[test]
    fn a_contender_without_a_run_is_named_and_shown_as_missing() {
        let mut cell = latency(&[[10.0, 30.0, 20.0]]);
        cell.rounds[0].remove(&Contender::Haproxy);
        assert_eq!(cell.missing(), [Contender::Haproxy]);
        assert!(text(&[cell]).lines().nth(1).is_some_and(|l| l.contains('-')));
    }
}
