//! `ambit lab cut|heal|shape`: faults of the link between a node and the fabric.

use ambit_lab::control::{LinkChange, Request, ask};
use ambit_lab::{LabError, LabName};

use crate::out;

/// One node.
#[derive(Debug, clap::Args)]
pub(super) struct NodeArgs {
    /// The node
    pub(super) node: String,
}

/// What a link is made like.
#[derive(Debug, clap::Args)]
pub(super) struct ShapeArgs {
    /// The node
    node: String,
    /// Packets lost in each direction, in percent
    #[arg(long, value_name = "PCT")]
    loss: Option<f64>,
    /// Rate in each direction, such as 10mbit
    #[arg(long)]
    rate: Option<String>,
    /// Largest packet in bytes
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
}

pub(super) fn change(lab: &LabName, node: &str, change: LinkChange) -> Result<i32, LabError> {
    ask(lab, &Request::Link { node: node.to_owned(), change }, &mut out::say)?;
    Ok(out::OK)
}

pub(super) fn shape(lab: &LabName, args: &ShapeArgs) -> Result<i32, LabError> {
    if args.loss.is_none() && args.rate.is_none() && args.mtu.is_none() {
        return Err(LabError::Usage("nothing to shape: give --loss, --rate or --mtu".to_owned()));
    }
    let shaped = LinkChange::Shape { loss_percent: args.loss, rate: args.rate.clone(), mtu_bytes: args.mtu };
    change(lab, &args.node, shaped)
}
