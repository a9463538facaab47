//! What metrics tell of the whole mesh, counted at each scrape and at no other time: waypoints that are missing, and
//! how far those who are served are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_control::Index;
use ambit_control::status::{Report, WAYPOINT_BOUND};
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::{escaped, family, series, single};

use crate::push::Publisher;
use crate::world::World;

/// Most services that are named as without their waypoint.
const UNBOUND_MAX: usize = 1000;
/// Most revisions that are told apart, the oldest of those that somebody holds.
const REVISIONS_MAX: usize = 16;

/// Gauges of what is served.
#[derive(Debug)]
pub struct Gauges {
    world: Arc<World>,
    publisher: Arc<Publisher>,
}

impl Gauges {
    /// Of a world, and of those it is published to.
    pub fn of(world: &Arc<World>, publisher: &Arc<Publisher>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), publisher: publisher.clone() })
    }
}

impl Source for Gauges {
    fn write(&self, text: &mut String) {
        unbound(text, &self.world.index());
        let nodes = self.publisher.sync(std::iter::empty::<&str>());
        let nodes = nodes.into_iter().filter(|node| node.connected).map(|node| node.acked_revision);
        let replicas = self.publisher.sync_waypoints(|_| true);
        let replicas = replicas.into_iter().filter(|one| one.connected).map(|one| one.acked_revision);
        revisions(text, nodes.chain(replicas));
    }
}

/// Services that ask for a waypoint and have none: nothing gets through to them.
fn unbound(text: &mut String, index: &Index) {
    let is_unbound = |report: &Report| report.all().any(|one| one.kind == WAYPOINT_BOUND && !one.holds);
    let services = index.reports().iter().filter(|(_, report)| is_unbound(report));
    write_unbound(text, services.map(|(key, _)| (key.kind.as_str(), key.name.to_string())));
}

/// By kind and name; those that there are too many of by their number.
fn write_unbound<'a>(text: &mut String, mut services: impl Iterator<Item = (&'a str, String)>) {
    family(text, "ambit_waypoint_unbound", "gauge");
    for (kind, name) in services.by_ref().take(UNBOUND_MAX) {
        let labels = format!("kind=\"{kind}\",service=\"{}\"", escaped(&name));
        series(text, "ambit_waypoint_unbound", &labels, 1);
    }
    let more = services.count();
    if more > 0 {
        series(text, "ambit_waypoint_unbound", "overflow=\"true\"", more);
    }
}

/// Of those who are connected, what each has answered everything up to.
fn revisions(text: &mut String, answered: impl Iterator<Item = u64>) {
    let mut holders: BTreeMap<u64, u64> = BTreeMap::new();
    for revision in answered {
        *holders.entry(revision).or_default() += 1;
    }
    family(text, "ambit_config_version_info", "gauge");
    for (revision, clients) in holders.iter().take(REVISIONS_MAX) {
        series(text, "ambit_config_version_info", &format!("version=\"{revision}\""), clients);
    }
    if let Some((least, _)) = holders.first_key_value() {
        single(text, "ambit_config_acked_revision_least", "gauge", least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_counted_oldest_first_and_bounded() {
        let mut text = String::new();
        revisions(&mut text, [7, 5, 7].into_iter().chain(100..200));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "ambit_config_version_info{version=\"5\"} 1");
        assert_eq!(lines[2], "ambit_config_version_info{version=\"7\"} 2");
        assert_eq!(lines.len(), 1 + REVISIONS_MAX + 2, "{text}");
        assert_eq!(lines.last(), Some(&"ambit_config_acked_revision_least 5"));
    }

    /// Whoever may make services may make any number of them.
    #[test]
    fn services_without_waypoint_are_named_up_to_a_bound_and_counted_beyond_it() {
        for (services, told, more) in
            [(0, 0, None), (UNBOUND_MAX, UNBOUND_MAX, None), (10_000, UNBOUND_MAX, Some(9000))]
        {
            let mut text = String::new();
            write_unbound(&mut text, (0..services).map(|n| ("Service", format!("shop/made-up-{n}"))));
            assert_eq!(text.lines().filter(|line| line.ends_with("\"} 1")).count(), told, "{services}");
            let rest = more.map(|more| format!("ambit_waypoint_unbound{{overflow=\"true\"}} {more}"));
            let last = text.lines().find(|line| line.contains("overflow"));
            assert_eq!(last, rest.as_deref(), "{services}");
        }
    }

    #[test]
    fn nobody_has_no_least_revision() {
        let mut text = String::new();
        revisions(&mut text, std::iter::empty());
        assert!(!text.contains("least"), "{text}");
    }

    #[test]
    fn a_label_cannot_be_left() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
