//! `ambit explain`: what happens if A calls B, hop by hop, by what the proxies on the way decide by now.
//!
//! Each proxy knows its own part: the ztunnel of the caller's node plans, the waypoint judges requests and routes, the
//! ztunnel of the endpoint's node asks its policies. Their answers are joined; nothing is decided here. `offline` asks
//! the same engine of the objects that a support bundle holds.

use std::path::PathBuf;

use ambit_explain::{Explanation, Onward, Step, Way};
use ambit_runtime::admin::client;
use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Node, Where, block_on, silent};
use crate::out::{self, Failure};

mod as_of;
mod offline;
mod text;

/// Explains what would happen to a connection or request.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Who calls: NAMESPACE/NAME of a pod, a controller or an app, or an address
    source: ambit_explain::Source,
    /// Whom: NAMESPACE/NAME:PORT of a service or pod, HOST:PORT or ADDRESS:PORT
    destination: ambit_explain::Destination,
    /// Method of the request
    #[arg(long)]
    method: Option<String>,
    /// Path of the request, with its query
    #[arg(long)]
    path: Option<String>,
    /// Host of the request; that of the destination by default
    #[arg(long)]
    host: Option<String>,
    /// A header of the request, NAME:VALUE; may be given several times
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Chooses another endpoint, and another of several weighted backends
    #[arg(long, default_value_t = 0)]
    draw: u64,
    /// Also what was recorded of it around then, and what has changed since (a time, or how long ago such as 10m)
    #[arg(long, value_name = "T", value_parser = as_of::moment)]
    as_of: Option<as_of::Moment>,
    /// Ask the archive of a support bundle instead of a mesh
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "as_of"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(super) at: Where,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

impl Args {
    /// Whether the proxies of a lab are asked.
    pub(super) fn asks_lab(&self) -> bool {
        self.bundle.is_none()
    }
}

/// Runs the command.
///
/// # Errors
/// When no proxy answers, or none understands the question, or a file is no support bundle.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let explanation = match &args.bundle {
        Some(file) => offline::explained(file, question(args))?,
        None => block_on(explained(args))?,
    };
    let then = args.as_of.map(|moment| as_of::then(args, moment, &explanation)).transpose()?;
    let item = serde_json::to_value(&explanation).context("writing the explanation")?;
    let list = List { kind: "ExplanationList", items: vec![item] };
    let more = then.iter().map(|then| ("as_of".to_owned(), then.value(&explanation))).collect();
    let story = |wide| {
        let then = then.as_ref().map(|then| format!("\n{}", then.lines(&explanation)));
        text::narrative(&explanation, wide) + &then.unwrap_or_default()
    };
    list.print_beside(
        more,
        &args.output,
        |_, wide| story(wide),
        |_| format!("explanation/{}", explanation.verdict),
    );
    if matches!(args.output, Form::Table | Form::Wide)
        && let Some(code) = explanation.code()
    {
        out::say(&format!("next: ambit why {}", code.code()));
    }
    Ok(out::OK)
}

/// Asks everybody on the way.
async fn explained(args: &Args) -> anyhow::Result<Explanation> {
    let question = question(args);
    let nodes = args.at.nodes()?;
    let near = of_source(&nodes, &question).await?;
    if near.way != Some(Way::Waypoint) {
        return of_endpoint_too(&nodes, near, &question).await;
    }
    let Some(waypoint) = of_waypoint(&args.at.recorders()?, &nodes, &question).await else {
        out::say("warning: no waypoint on the way answers, so what it would do is assumed");
        return Ok(near);
    };
    let far = match &waypoint.onward {
        Some(onward) => second_leg(&nodes, onward, waypoint.endpoint_node.as_deref(), args.draw).await,
        None => None,
    };
    Ok(ambit_explain::join(near, waypoint, far))
}

fn question(args: &Args) -> Value {
    let is_request =
        args.method.is_some() || args.path.is_some() || args.host.is_some() || !args.headers.is_empty();
    let http = is_request.then(|| {
        json!({
            "method": args.method.as_deref().unwrap_or("GET"),
            "path": args.path.as_deref().unwrap_or("/"),
            "host": args.host,
            "headers": args.headers,
        })
    });
    json!({
        "source": args.source.to_string(),
        "destination": args.destination.to_string(),
        "http": http,
        "draw": args.draw,
    })
}

/// What the ztunnel of the caller's node says; any other one's word, if that does not answer or there is none.
async fn of_source(nodes: &[Node], question: &Value) -> anyhow::Result<Explanation> {
    let mut any = None;
    for node in nodes {
        match ask(node, question).await {
            Ok(answer) if answer.source_node.as_ref() == Some(&node.name) => return Ok(answer),
            Ok(answer) => any = any.or(Some(answer)),
            Err(error) => out::say(&format!("warning: {}", silent(&node.name, &error))),
        }
    }
    any.ok_or_else(|| Failure::new(out::UNREACHABLE, "no node answers; is the lab up?").into())
}

/// The answer of the caller's node; where the endpoint's node says something else of its policies, that is told.
async fn of_endpoint_too(nodes: &[Node], near: Explanation, question: &Value) -> anyhow::Result<Explanation> {
    let Some(node) = named(nodes, near.endpoint_node.as_deref()) else { return Ok(near) };
    if near.source_node.as_ref() == Some(&node.name) {
        return Ok(near);
    }
    match ask(node, question).await {
        Ok(far) if far.verdict == near.verdict && far.reason == near.reason => Ok(near),
        Ok(far) => {
            out::say(&format!(
                "warning: the nodes do not agree yet: {} says {}; shown is what {} decides by",
                near.source_node.as_deref().unwrap_or("one node"),
                near.verdict,
                node.name
            ));
            Ok(far)
        }
        Err(error) => {
            out::say(&format!("warning: {}", silent(&node.name, &error)));
            Ok(near)
        }
    }
}

/// What the waypoint says that the question leads to.
async fn of_waypoint(recorders: &[Node], nodes: &[Node], question: &Value) -> Option<Explanation> {
    let waypoints = recorders.iter().filter(|one| nodes.iter().all(|node| node.socket != one.socket));
    for waypoint in waypoints {
        match ask(waypoint, question).await {
            Ok(answer) if is_its_own(&answer) => return Some(answer),
            // It is another service's.
            Ok(_) => {}
            Err(error) => out::say(&format!("warning: {}", silent(&waypoint.name, &error))),
        }
    }
    None
}

/// Whether the waypoint that answered is the one on the way.
fn is_its_own(answer: &Explanation) -> bool {
    let is_unknown =
        answer.hop(Step::WaypointPolicy).is_some_and(|hop| hop.outcome == ambit_explain::Outcome::Unknown);
    answer.way == Some(Way::Waypoint) && !is_unknown
}

/// What the endpoint's node says of the waypoint's own connection.
async fn second_leg(nodes: &[Node], onward: &Onward, node: Option<&str>, draw: u64) -> Option<Explanation> {
    let node = named(nodes, node)?;
    let question = json!({
        "source": onward.waypoint,
        "destination": onward.address.to_string(),
        "client": onward.client,
        "draw": draw,
    });
    match ask(node, &question).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            out::say(&format!("warning: {}", silent(&node.name, &error)));
            None
        }
    }
}

fn named<'n>(nodes: &'n [Node], name: Option<&str>) -> Option<&'n Node> {
    nodes.iter().find(|node| Some(&*node.name) == name)
}

async fn ask(node: &Node, question: &Value) -> anyhow::Result<Explanation> {
    let answer = client::post_body(&node.socket, "/explain", question.to_string()).await?;
    if !answer.status.is_success() {
        bail!("it answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
    }
    serde_json::from_slice(&answer.body).context("its answer is no explanation")
}

/// Reads `NAME:VALUE`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not NAME:VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
