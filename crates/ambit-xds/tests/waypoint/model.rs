//! Random changes, answers and broken streams: in the end the store is what is published, and at every step each route
//! leads to a service that is there, and each service that is there has its policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::http::model::Action;
use ambit_route::model::{Group, Target};
use ambit_types::ServiceKey;
use ambit_xds::Kind;
use ambit_xds::client::{Content, Update};
use ambit_xds::codec::{Address, HttpPolicy, PolicyTarget};
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use ambit_xds::server::{self, Connection, WaypointDelta};
use proptest::prelude::*;

use super::rig::*;

const NAMES: u8 = 4;

#[derive(Debug, Clone)]
enum Act {
    /// A service with its policy, or their end; routes that lead there end with it.
    Service(u8, bool),
    /// Routes of a service, of this content, to another one, or their end.
    Routes(u8, Option<(u8, u32)>),
    Publish,
    /// One response is applied and answered.
    Answer,
    /// One response is lost with its stream.
    Reconnect,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..NAMES, any::<bool>()).prop_map(|(name, there)| Act::Service(name, there)),
        4 => (0..NAMES, proptest::option::weighted(0.8, (0..NAMES, 0..3u32)))
            .prop_map(|(name, to)| Act::Routes(name, to)),
        3 => Just(Act::Publish),
        6 => Just(Act::Answer),
        1 => Just(Act::Reconnect),
    ];
    proptest::collection::vec(act, 1..80)
}

/// What is to be published: services, and routes by service with where they lead and a weight.
#[derive(Debug, Clone, Default)]
struct Wanted {
    services: BTreeSet<u8>,
    routes: BTreeMap<u8, (u8, u32)>,
}

fn name(number: u8) -> String {
    format!("s{number}")
}

fn lock(number: u8) -> Arc<HttpPolicy> {
    let target = PolicyTarget::Service(key(&name(number)));
    policy(&format!("lock-{number}"), Action::Deny, 1, vec![target])
}

struct World {
    rig: Rig,
    wanted: Wanted,
    published: Wanted,
    /// Services that the client has.
    services: BTreeSet<ServiceKey>,
    response: Option<DeltaDiscoveryResponse>,
    revision: u64,
}

impl World {
    fn act(&mut self, act: Act) {
        match act {
            Act::Service(number, true) => drop(self.wanted.services.insert(number)),
            Act::Service(number, false) => {
                self.wanted.services.remove(&number);
                self.wanted.routes.retain(|_, (to, _)| *to != number);
            }
            Act::Routes(number, Some((to, weight))) if self.wanted.services.contains(&to) => {
                self.wanted.routes.insert(number, (to, weight));
            }
            Act::Routes(number, None) => drop(self.wanted.routes.remove(&number)),
            Act::Routes(_, Some(_)) => {}
            Act::Publish => self.publish(),
            Act::Answer => self.answer(),
            Act::Reconnect => self.reconnect(),
        }
    }

    fn publish(&mut self) {
        let (new, old) = (self.wanted.clone(), std::mem::take(&mut self.published));
        self.revision += 1;
        let services: Vec<String> = new.services.iter().map(|n| name(*n)).collect();
        let mut delta = addresses(&services.iter().map(String::as_str).collect::<Vec<_>>());
        let gone: Vec<u8> = old.services.difference(&new.services).copied().collect();
        delta.removed_addresses = gone.iter().map(|n| key(&name(*n)).to_string()).collect();
        let ended = old.routes.keys().filter(|n| !new.routes.contains_key(n));
        let ended = ended.map(|n| (Kind::Frontend, format!("{}/80", key(&name(*n)))));
        let unlocked = gone.iter().map(|n| (Kind::HttpPolicy, format!("shop/lock-{n}")));
        let own = WaypointDelta {
            frontends: new
                .routes
                .iter()
                .map(|(n, (to, w))| routes(&name(*n), &["/"], &name(*to), *w))
                .collect(),
            policies: new.services.iter().map(|n| lock(*n)).collect(),
            removed: ended.chain(unlocked).collect(),
            ..WaypointDelta::default()
        };
        self.rig.resources.apply(self.revision, delta);
        self.rig.resources.apply_waypoint(self.revision, &wp(), own);
        self.published = new;
        let latest = Arc::new(self.rig.resources.clone());
        let response = self.rig.server.handle_change(latest, self.rig.now);
        self.response = self.response.take().or(response);
    }

    fn answer(&mut self) {
        let Some(response) = self.response.take() else { return };
        let (update, request) = self.rig.take(&response);
        self.note(update);
        self.check();
        self.response = self.rig.server.handle_request(request, self.rig.now).unwrap();
    }

    fn reconnect(&mut self) {
        self.rig.client.on_disconnect();
        let latest = Arc::new(self.rig.resources.clone());
        self.rig.server = Connection::for_waypoint("n1", wp(), latest, server::Limits::default());
        self.response = None;
        for request in self.rig.client.on_connect() {
            let response = self.rig.server.handle_request(request, self.rig.now).unwrap();
            assert!(response.is_none() || self.response.is_none(), "one response at a time");
            self.response = self.response.take().or(response);
        }
    }

    fn note(&mut self, update: Update) {
        let Content::Addresses { upserts, removed } = update.content else { return };
        for name in removed {
            self.services.remove(&ServiceKey::parse(&name).unwrap());
        }
        self.services.extend(upserts.into_iter().map(|address| match address {
            Address::Service(service) => service.key(),
            Address::Workload(workload) => panic!("{workload:?}"),
        }));
    }

    fn check(&self) {
        for frontend in self.rig.store.frontends() {
            let Some(Group::Http(routes)) = &frontend.producer else { panic!("{frontend:?}") };
            let Target::Service { service, .. } = &routes[0].rules[0].backends[0].target else { panic!() };
            assert!(self.services.contains(service), "a route leads to {service}, which is not there");
        }
        for service in &self.services {
            assert!(!self.rig.store.policies_for(service).held.is_empty(), "{service} has no policy");
        }
    }
}

proptest! {
    #[test]
    fn the_store_becomes_what_is_published(acts in acts()) {
        let (wanted, published) = Default::default();
        let mut world = World {
            rig: Rig::new(), wanted, published, services: BTreeSet::new(), response: None, revision: 0,
        };
        world.reconnect();
        for act in acts {
            world.act(act);
        }
        world.publish();
        while world.response.is_some() {
            world.answer();
        }
        let want: Vec<_> = world
            .published
            .routes
            .iter()
            .map(|(n, (to, weight))| routes(&name(*n), &["/"], &name(*to), *weight))
            .collect();
        prop_assert_eq!(world.rig.store.frontends().cloned().collect::<Vec<_>>(), want);
        let services: BTreeSet<ServiceKey> = world.published.services.iter().map(|n| key(&name(*n))).collect();
        prop_assert_eq!(&world.services, &services);
        let locks: Vec<_> = world.published.services.iter().map(|n| lock(*n)).collect();
        prop_assert_eq!(world.rig.store.policies().cloned().collect::<Vec<_>>(), locks);
        prop_assert_eq!(world.rig.server.acked_revision(), Some(world.revision));
    }
}
