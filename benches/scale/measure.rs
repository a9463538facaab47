//! One source in one mode, from the start of the control plane to the end of the churn. Decides what follows what.

use std::path::Path;
use std::time::Duration;

use ambit_benches::{Mode, Run, Scale, Source};
use ambit_runtime::clock;
use anyhow::Context as _;

use crate::facts::{Change, Churn, Facts, Settings};
use crate::layout::Layout;
use crate::objects::Objects;
use crate::plane::Plane;
use crate::process::Memory;
use crate::ztunnels::{Fleet, Given};

/// How long a change may take to reach those whom it concerns.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Time from one change of the churn to the next: 1,000 a minute.
const CHURN_EVERY: Duration = Duration::from_millis(60);
/// Time from one look at memory to the next.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Goes from a pod to one far away, and through all of them where their number has no such factor.
const FAR: usize = 7919;

/// A source of objects with everything in it, and what the control plane needed before that.
pub(crate) struct Filled {
    source: Source,
    objects: Objects,
    layout: Layout,
    empty: Memory,
}

impl Filled {
    /// Makes the source below `home`, measures the control plane over it while it is empty, and fills it.
    ///
    /// # Errors
    /// If any of that fails.
    pub(crate) async fn make(
        source: Source,
        asked: &Scale,
        home: &Path,
        say: fn(&str),
    ) -> anyhow::Result<Self> {
        let layout = Layout::new(asked.pods, asked.services, asked.clients);
        let mut objects = Objects::open(source, home, &layout, &asked.kube).await?;
        let empty = {
            let plane = Plane::start(&asked.istiod, &home.join("empty"), objects.arguments()).await?;
            tokio::time::sleep(asked.settle).await;
            plane.memory()?
        };
        say(&format!(
            "bench: {}: writing {} pods, {} services, {} nodes",
            source.word(),
            asked.pods,
            asked.services,
            asked.clients
        ));
        let started = clock::monotonic();
        objects.fill(&layout).await.context("writing the objects")?;
        let took = clock::monotonic().saturating_duration_since(started);
        say(&format!("bench: {}: written in {:.0} s", source.word(), took.as_secs_f64()));
        Ok(Self { source, objects, layout, empty })
    }

    /// Measures one mode with a control plane of its own.
    ///
    /// # Errors
    /// If the control plane or a proxy fails.
    pub(crate) async fn run(
        &mut self,
        mode: Mode,
        asked: &Scale,
        home: &Path,
        say: fn(&str),
    ) -> anyhow::Result<Run> {
        let what = format!("bench: {}, {}", self.source.word(), mode.word());
        let count = match mode {
            Mode::OnDemand => asked.clients,
            Mode::Wildcard => asked.wildcard_clients,
        };
        let mut plane =
            Plane::start(&asked.istiod, &home.join(mode.word()), self.objects.arguments()).await?;
        plane.check_objects().await?;
        let load = plane.ready_after;
        say(&format!("{what}: objects read in {:.1} s", load.as_secs_f64()));
        tokio::time::sleep(asked.settle).await;
        let loaded = plane.memory()?;

        let mut fleet = Fleet::new(plane.target(), mode, count);
        let (first, rest) = self.sync(&mut fleet).await.context("syncing the proxies")?;
        plane.until_answered(plane.revision().await?, count).await?;
        let given = fleet.given();
        say(&format!("{what}: {count} proxies synced in {:.1} s", rest.as_secs_f64()));
        tokio::time::sleep(asked.settle).await;
        let synced = plane.memory()?;

        let mut faults = Vec::new();
        let mut changes = Vec::with_capacity(asked.changes);
        for number in 0..asked.changes {
            changes.push(self.change(mode, number, &mut plane, &mut fleet, &mut faults).await?);
        }
        say(&format!("{what}: {} single changes made; pods change for {:?}", changes.len(), asked.churn));
        let churn = self.churn(asked.churn, &mut plane, &mut fleet).await.context("churning")?;
        let settings = Settings {
            mode,
            pods: asked.pods,
            objects: asked.pods + asked.services + 2 * asked.clients,
            clients: count,
        };
        let facts = Facts {
            load,
            empty: self.empty,
            loaded,
            synced,
            last: plane.memory()?,
            first,
            rest,
            given,
            changes,
            churn,
        };
        Ok(Run { source: self.source, mode, rows: facts.rows(settings), faults })
    }

    /// Lets the first proxy call, alone, and then all others; how long the first took, and all others together.
    async fn sync(&self, fleet: &mut Fleet) -> anyhow::Result<(Duration, Duration)> {
        let mut tokens = self.objects.tokens(fleet.len()).await?.into_iter().enumerate();
        if let Some((node, token)) = tokens.next() {
            fleet.call(&self.layout, node, token);
        }
        let first = fleet.until_synced(1).await?.into_iter().max().unwrap_or_default();
        let started = clock::monotonic();
        for (node, token) in tokens {
            fleet.call(&self.layout, node, token);
        }
        fleet.until_synced(fleet.len() - 1).await?;
        Ok((first, clock::monotonic().saturating_duration_since(started)))
    }

    /// Makes one change while nothing else happens, and looks at who was given what.
    async fn change(
        &mut self,
        mode: Mode,
        number: usize,
        plane: &mut Plane,
        fleet: &mut Fleet,
        faults: &mut Vec<String>,
    ) -> anyhow::Result<Change> {
        let place = (number * FAR + 1) % self.layout.places();
        let resource = self.layout.resource(place);
        let mut concerned = match mode {
            Mode::OnDemand => self.layout.concerned(place),
            Mode::Wildcard => (0..fleet.len()).collect(),
        };
        concerned.retain(|node| *node < fleet.len());
        let before = fleet.given();
        fleet.seek(&resource);
        let started = clock::monotonic();
        let revision = self.objects.flip(&mut self.layout, place).await?;
        let last = match fleet.until_arrived(concerned.clone(), CHANGE_MAX).await? {
            Ok(last) => Some(last.saturating_duration_since(started)),
            Err(nodes) => {
                faults.push(format!("a change of {resource} did not reach {} of its proxies", nodes.len()));
                None
            }
        };
        plane.until_answered(revision, fleet.len()).await?;
        fleet.seek("");
        let after = fleet.given();
        let bytes = |is_wanted: bool| -> u64 {
            let grown = before.iter().zip(&after).enumerate();
            let of = grown.filter(|(node, _)| concerned.contains(node) == is_wanted);
            of.map(|(_, (before, after))| after.bytes - before.bytes).sum()
        };
        let change =
            Change { last, concerned: concerned.len(), bytes: bytes(true), bytes_to_others: bytes(false) };
        if change.bytes_to_others > 0 {
            let bytes = change.bytes_to_others;
            faults.push(format!(
                "a change of {resource} gave {bytes} bytes to proxies that it does not concern"
            ));
        }
        Ok(change)
    }

    /// Pods change all the time: half of the changes turn readiness, the others replace a pod by another.
    async fn churn(&mut self, time: Duration, plane: &mut Plane, fleet: &mut Fleet) -> anyhow::Result<Churn> {
        let (cpu, given) = (plane.cpu_seconds()?, total(&fleet.given()));
        let mut tick = tokio::time::interval(CHURN_EVERY);
        let started = clock::monotonic();
        let (mut samples, mut made, mut vacant) = (Vec::new(), 0, None);
        let mut next_sample = started;
        loop {
            tick.tick().await;
            let now = clock::monotonic();
            if now >= next_sample {
                samples.push((now.saturating_duration_since(started), plane.memory()?.now));
                next_sample += SAMPLE_EVERY;
                fleet.check()?;
            }
            if now.saturating_duration_since(started) >= time {
                break;
            }
            self.churn_once(made, &mut vacant).await?;
            made += 1;
        }
        if let Some(place) = vacant.take() {
            self.refill(place).await?;
        }
        let took = clock::monotonic().saturating_duration_since(started);
        // The last change: once it is answered, all before it are.
        let revision = self.objects.flip(&mut self.layout, 0).await?;
        let ended = clock::monotonic();
        plane.until_answered(revision, fleet.len()).await?;
        let caught_up = clock::monotonic().saturating_duration_since(ended);
        let (cpu, bytes) = (plane.cpu_seconds()? - cpu, total(&fleet.given()).bytes - given.bytes);
        Ok(Churn { made, took, samples, cpu, bytes, caught_up })
    }

    async fn churn_once(&mut self, number: usize, vacant: &mut Option<usize>) -> anyhow::Result<()> {
        let place = (number * FAR + 2) % self.layout.places();
        match number % 4 {
            2 => {
                self.objects.remove(&self.layout.pod_name(place)).await?;
                *vacant = Some(place);
                Ok(())
            }
            3 => match vacant.take() {
                Some(place) => self.refill(place).await,
                None => Ok(()),
            },
            _ => self.objects.flip(&mut self.layout, place).await.map(drop),
        }
    }

    async fn refill(&mut self, place: usize) -> anyhow::Result<()> {
        self.layout.replace(place);
        self.objects.create(&self.layout, place).await
    }
}

fn total(given: &[Given]) -> Given {
    let add = |sum: Given, one: &Given| Given {
        bytes: sum.bytes + one.bytes,
        resources: sum.resources + one.resources,
    };
    given.iter().fold(Given::default(), add)
}
