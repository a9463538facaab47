//! `ambit enroll` and `ambit unenroll`: a namespace joins or leaves the mesh by its label, and it is told how far its
//! pods are. No pod restarts.
//!
//! In a lab the label goes through the lab; the pods' state is read in the same form from either.

use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use ambit_lab::control::{Request, ask};
use ambit_lab::store::{Kind, ObjectKey};
use ambit_lab::{LabName, RunDir, manifests};
use clap::Subcommand;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use super::install::cluster::{At, merge};
use super::nodes::block_on;
use super::place;
use crate::out::{self, Failure};

mod progress;

use progress::{Progress, Restarts};

/// Label by which a namespace is in the mesh.
const MODE: &str = "istio.io/dataplane-mode";
/// How often the pods are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Makes a namespace join or leave the mesh.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A namespace
    #[command(visible_alias = "namespace")]
    Ns(NamespaceArgs),
}

#[derive(Debug, clap::Args)]
struct NamespaceArgs {
    /// Its name
    name: String,
    /// Wait until every pod has followed, and tell how far they are
    #[arg(short, long)]
    watch: bool,
    /// Only tell which pods it is about
    #[arg(long)]
    dry_run: bool,
    /// With --watch: how long to wait
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[arg(long, env = "AMBIT_LAB", help = place::LAB)]
    lab: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the mesh.
    In,
    /// Out of it.
    Out,
}

impl Args {
    /// The lab that the command is about; none if it is about a cluster.
    pub(super) fn lab(&self) -> Option<&LabName> {
        let What::Ns(args) = &self.what;
        args.lab()
    }
}

impl NamespaceArgs {
    fn lab(&self) -> Option<&LabName> {
        place::lab(self.lab.as_ref(), &self.usual, &self.at)
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such namespace, the change is refused, or pods do not follow in time.
pub fn run(args: &Args, way: Way) -> anyhow::Result<i32> {
    let What::Ns(args) = &args.what;
    block_on(async {
        let place = match args.lab() {
            Some(lab) => Place::Lab(lab.clone()),
            None => Place::Cluster(args.at.connect().await?),
        };
        place.check(&args.name).await?;
        let before = place.pods(&args.name).await?;
        let restarts = Restarts::of(&before);
        if args.dry_run {
            out::data(&format!("{}; nothing was changed", Progress::of(&before, way).would(&args.name)));
            return Ok(out::OK);
        }
        place.label(&args.name, way).await?;
        let verb = if way == Way::In { "enrolled" } else { "unenrolled" };
        out::data(&format!("namespace {} {verb}", args.name));
        if args.watch {
            watch(&place, args, way, &restarts).await?;
        }
        Ok(out::OK)
    })
}

/// Tells how far the pods are until all have followed.
async fn watch(place: &Place, args: &NamespaceArgs, way: Way, before: &Restarts) -> anyhow::Result<()> {
    let mut told = String::new();
    let mut ticks = interval(LOOK);
    let watched = async {
        loop {
            ticks.tick().await;
            let pods = place.pods(&args.name).await?;
            let progress = Progress::of(&pods, way);
            let line = progress.line(before.more_in(&pods));
            if line != told {
                out::data(&line);
                told = line;
            }
            if progress.is_complete() {
                return anyhow::Ok(());
            }
        }
    };
    if let Ok(done) = timeout(args.timeout, watched).await {
        return done;
    }
    let waiting = Progress::of(&place.pods(&args.name).await?, way).waiting();
    let message = format!(
        "after {:?} these pods have not followed: {waiting}. The label stays, and they follow once that is mended",
        args.timeout
    );
    Err(Failure::new(out::FAILED, message).into())
}

/// Where the namespace is.
enum Place {
    Lab(LabName),
    Cluster(Client),
}

impl Place {
    /// Says no to a namespace that is not there.
    async fn check(&self, name: &str) -> anyhow::Result<()> {
        let is_there = match self {
            Self::Lab(lab) => {
                let run = RunDir::of(lab);
                if !run.root().exists() {
                    return Err(Failure::new(out::UNREACHABLE, super::nodes::no_lab(lab)).into());
                }
                manifests::stored(&run, Kind::Namespace)?.iter().any(|ns| ns["metadata"]["name"] == name)
            }
            Self::Cluster(client) => {
                let namespace = Target::new("v1", "Namespace", None, name)?;
                write::get(client, &namespace).await?.is_some()
            }
        };
        if is_there {
            return Ok(());
        }
        Err(Failure::new(out::FAILED, format!("there is no namespace {name}")).into())
    }

    async fn pods(&self, namespace: &str) -> anyhow::Result<Vec<Value>> {
        match self {
            Self::Lab(lab) => {
                let mut pods = manifests::stored(&RunDir::of(lab), Kind::Pod)?;
                pods.retain(|pod| pod["metadata"]["namespace"] == namespace);
                Ok(pods)
            }
            Self::Cluster(client) => {
                let pods = Target::new("v1", "Pod", Some(namespace), "")?;
                Ok(write::list(client, &pods, None, None).await?)
            }
        }
    }

    /// Sets or removes the label of the namespace.
    async fn label(&self, name: &str, way: Way) -> anyhow::Result<()> {
        let value = (way == Way::In).then(|| "ambient".to_owned());
        match self {
            Self::Lab(lab) => {
                let object = ObjectKey::new(Kind::Namespace, None, name);
                let changes = vec![(MODE.to_owned(), value)];
                let request = Request::Mark { object, annotations: false, changes, wait: None };
                ask(lab, &request, &mut out::say)?;
            }
            Self::Cluster(client) => {
                let change = json!({"metadata": {"labels": {MODE: value}}});
                let target = Target::new("v1", "Namespace", None, name)?;
                merge(client, &target, &change).await.map_err(|error| match error {
                    KubeError::Forbidden { .. } => Failure::new(out::FAILED, error.to_string()),
                    other => Failure::new(out::UNREACHABLE, other.to_string()),
                })?;
            }
        }
        Ok(())
    }
}
