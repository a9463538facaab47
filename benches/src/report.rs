//! The results for machines. Pure; the shape is stable within its `version`.

use serde_json::{Value, json};

use crate::contenders::Contender;
use crate::machine::Machine;
use crate::options::Options;
use crate::run::Cell;
use crate::table::{Row, rows};
use crate::waypoint::{self, Results};

/// Raised when a reader of older files would misunderstand newer ones.
const VERSION: u32 = 1;

/// Everything of a run.
pub(crate) fn json(
    machine: &Machine,
    options: &Options,
    cells: &[Cell],
    at_waypoint: Option<&Results>,
) -> Value {
    let results: Vec<Value> =
        cells.iter().flat_map(|cell| rows(cell).into_iter().map(|r| result(cell, &r))).collect();
    let missing: Vec<Value> =
        cells.iter().flat_map(|cell| cell.missing().into_iter().map(|c| did_not_run(cell, c))).collect();
    json!({
        "version": VERSION,
        "machine": machine.json(),
        "settings": {
            "pairs": options.pairs(), "seconds": options.seconds(), "connections": options.connections(),
            "settleSeconds": options.settle(), "set": options.set,
        },
        "results": results,
        "didNotRun": missing,
        // Null if it was not asked for.
        "waypoint": at_waypoint.map(waypoint::json),
    })
}

fn result(cell: &Cell, row: &Row) -> Value {
    let contenders: serde_json::Map<String, Value> = row
        .series
        .iter()
        .map(|(contender, s)| {
            let value = json!({"median": s.median, "min": s.min, "max": s.max, "samples": s.samples});
            (contender.name().to_owned(), value)
        })
        .collect();
    let mut ratios = serde_json::Map::new();
    for of in Contender::ALL.into_iter().filter(|c| !c.is_control()) {
        for to in Contender::ALL.into_iter().filter(|c| c.is_control()) {
            if let Some(ratio) = row.ratio(of, to) {
                ratios.insert(format!("{}/{}", of.name(), to.name()), json!(ratio));
            }
        }
    }
    let metric = row.metric.name();
    json!({
        "place": cell.place.name(), "measure": cell.measure.name(), "otherLoad": cell.other_load,
        "metric": if row.added { format!("{metric}_added") } else { metric.to_owned() },
        "contenders": contenders, "ratios": ratios,
    })
}

fn did_not_run(cell: &Cell, contender: Contender) -> Value {
    json!({"place": cell.place.name(), "measure": cell.measure.name(), "contender": contender.name()})
}
