//! `ambit status`: is every part there, in step with the control plane, and are the pods captured.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::get::Output;
use super::nodes::{Where, block_on, json, text};
use crate::out;

/// Shows versions, synchronisation, capture and certificates of every node.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    at: Where,
    /// table or json
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// Runs the command.
///
/// # Errors
/// When there is no lab of that name.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let (rows, healthy) = block_on(async {
        // A control plane that is away is a finding, not a failure of the question.
        let sync = json(&args.at.istiod(), "/sync").await.unwrap_or(Value::Null);
        let mut rows = Vec::new();
        for node in args.at.nodes()? {
            rows.push(row(&node.name, &node.socket, &sync).await);
        }
        let healthy = !sync.is_null() && rows.iter().all(|row| row["ready"] == true && row["synced"] == true);
        Ok((rows, healthy))
    })?;
    match args.output {
        Output::Json => {
            out::data(
                &json!({"apiVersion": "cli.ambit.internal/v1", "kind": "NodeList", "items": rows})
                    .to_string(),
            );
        }
        Output::Table => {
            let heading = ["NODE", "VERSION", "READY", "SYNCED", "STATE", "CAPTURED", "CERTS", "REJECTED"];
            let cells = |row: &Value| {
                ["node", "version", "ready", "synced", "state", "captured", "certificates", "rejected"]
                    .map(|k| text(row, k))
                    .to_vec()
            };
            out::data(&out::table(&heading, &rows.iter().map(cells).collect::<Vec<_>>()));
        }
    }
    Ok(if healthy { out::OK } else { out::FAILED })
}

async fn row(node: &str, socket: &std::path::Path, sync: &Value) -> Value {
    let told = sync["nodes"].as_array().into_iter().flatten().find(|n| n["node"] == node);
    let connected = told.is_some_and(|n| n["connected"] == true);
    let synced = connected && told.is_some_and(|n| n["acked_revision"].as_u64() >= sync["revision"].as_u64());
    let rejected = told.and_then(|n| n["rejected"].as_array()).map_or(0, Vec::len);
    let (dump, health) = (json(socket, "/config_dump").await, json(socket, "/healthz/ready?verbose").await);
    let ready = health
        .as_ref()
        .is_ok_and(|parts| parts.as_object().is_some_and(|parts| parts.values().all(|ready| *ready == true)));
    let Ok(dump) = dump else {
        return json!({"node": node, "version": "-", "ready": false, "synced": synced, "state": "-", "captured": "-", "certificates": "-", "rejected": rejected});
    };
    let own = |w: &&Value| w["node"] == node;
    let workloads = dump["workloads"].as_array();
    let captured = workloads.into_iter().flatten().filter(own).filter(|w| w["protocol"] == "HBONE").count();
    let all = workloads.into_iter().flatten().filter(own).count();
    let certificates = dump["certificates"].as_array();
    let valid = certificates.into_iter().flatten().filter(|c| c["valid"] == true).count();
    let total = certificates.map_or(0, Vec::len);
    json!({
        "node": node,
        "version": text(&dump["version"], "version"),
        "ready": ready,
        "synced": synced,
        "state": state(&dump["state"]),
        "captured": format!("{captured}/{all}"),
        "certificates": format!("{valid}/{total}"),
        "rejected": rejected,
    })
}

/// Where a node's knowledge comes from and how old it is: `live`, `stale 12 s`, `sealed 12 s`.
fn state(state: &Value) -> String {
    let is_sealed = state["source"] == "sealed";
    match state["staleFor"].as_u64() {
        None => "live".to_owned(),
        Some(seconds) => format!("{} {seconds} s", if is_sealed { "sealed" } else { "stale" }),
    }
}
