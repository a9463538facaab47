//! From the source of objects to those who are served: one task takes in what changed.

use std::sync::Arc;

use ambit_control::Name;
use ambit_manifest::Problem;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use ambit_xds::node::WaypointKey;
use tokio::sync::{oneshot, watch};
use tracing::debug;

use crate::config::Config;
use crate::observe::{self, Hub};
use crate::push::Publisher;
use crate::report::Sources;
use crate::watch::{Feed, Update};
use crate::world::World;

/// Takes in what the source says, the only writer of the world.
pub(crate) struct Follower {
    pub(crate) world: Arc<World>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) sources: Arc<Sources>,
    /// Where changes stand beside what was refused after them.
    pub(crate) hub: Hub,
    /// Counts updates, for those who act on them.
    pub(crate) changed: watch::Sender<u64>,
    /// What is wrong with objects that cannot be read; changes before `changed` does.
    pub(crate) problems: watch::Sender<Arc<[Problem]>>,
    /// Whether there is a state, and whether it is the newest.
    objects: Part,
}

impl Follower {
    /// Of an empty world; `objects` becomes ready with the first update.
    pub(crate) fn new(config: &Config, objects: Part) -> Self {
        let (publisher, sources) = (Arc::default(), Arc::default());
        let world = Arc::new(World::new(config.index()));
        let problems = watch::Sender::new(Arc::from(Vec::new()));
        Self {
            world,
            publisher,
            sources,
            hub: Hub::default(),
            changed: watch::Sender::new(0),
            problems,
            objects,
        }
    }

    /// Takes in updates until `drain` begins; tells `on_loss` if there can be no more.
    pub(crate) async fn follow(self, mut feed: Feed, drain: Drain, on_loss: oneshot::Sender<&'static str>) {
        loop {
            let update = tokio::select! {
                update = feed.next() => update,
                () = drain.draining() => return,
            };
            match update {
                Some(update) => self.take(update),
                None => {
                    // Nobody listens any more only while the program ends anyway.
                    let _ = on_loss.send("the source of objects is gone");
                    return;
                }
            }
        }
    }

    /// Takes in an update.
    pub(crate) fn take(&self, update: Update) {
        let Update { events, revision, problems, stale } = update;
        let (changed, named) = (events.len(), observe::named(&events));
        let delta = self.world.apply(events);
        self.sources.tell(&delta);
        self.hub.placed(&delta);
        self.publisher.publish(revision, delta);
        if let Some(named) = named {
            self.hub.changed(revision, named);
        }
        {
            let index = self.world.index();
            let is_replica = |gateway: &WaypointKey, pod: &str, node: &str| {
                let name = Name::new(gateway.namespace.clone(), gateway.name.clone());
                index.waypoints().contains_key(&name)
                    && index
                        .pods_on(node)
                        .any(|p| p.name.namespace == gateway.namespace && *p.name.name == *pod)
            };
            self.publisher.forget(|node| index.node(node).is_some(), is_replica);
        }
        self.problems.send_if_modified(|before| {
            let differs = **before != *problems;
            if differs {
                *before = problems.as_slice().into();
            }
            differs
        });
        self.sources.take(revision, problems);
        // The last state stays in force, so we stay ready.
        match stale.as_slice() {
            [] => self.objects.set(true),
            [first, more @ ..] => {
                self.objects.ready_with(format!("stale ({} more): {first}", more.len()));
            }
        }
        self.sources.stale(stale);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        debug!(revision, changed, "took in a change");
    }
}
