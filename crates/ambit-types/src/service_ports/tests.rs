//! That it is the map it stands for, and shares what it says it shares.

use super::*;
use crate::AppProtocol;

fn key(host: &str) -> ServiceKey {
    ServiceKey::new("shop", host)
}

fn port(service_port: u16) -> Port {
    Port { service_port, target_port: service_port + 8000, app_protocol: AppProtocol::Tcp }
}

fn backed(services: &[(&str, u16)]) -> ServicePorts {
    services.iter().map(|(host, number)| (key(host), vec![port(*number)])).collect()
}

#[test]
fn a_service_is_found_whatever_the_order_they_came_in_and_the_last_list_counts() {
    let all = backed(&[("db", 5), ("api", 80), ("web", 81), ("api", 82)]);
    let found = ["api", "db", "web", "", "cart", "zoo"].map(|host| all.get(&key(host)).map(<[Port]>::to_vec));
    assert_eq!(found, [Some(vec![port(82)]), Some(vec![port(5)]), Some(vec![port(81)]), None, None, None]);
    assert!(all.contains_key(&key("db")) && !all.contains_key(&key("cart")));
    assert!(!all.contains_key(&ServiceKey::new("bank", "db")), "another namespace");
    assert_eq!(all.keys().cloned().collect::<Vec<_>>(), [key("api"), key("db"), key("web")]);
    assert_eq!(all.values().map(|ports| ports[0].service_port).collect::<Vec<_>>(), [82, 5, 81]);
    assert_eq!((all.len(), all.is_empty()), (3, false));
}

#[test]
fn it_is_the_tree_of_the_same_services() {
    let tree: BTreeMap<ServiceKey, Vec<Port>> =
        [(key("web"), vec![port(80), port(81)]), (key("api"), Vec::new())].into();
    let all = ServicePorts::from(tree.clone());
    let pairs: Vec<_> = all.iter().map(|(service, ports)| (service.clone(), ports.to_vec())).collect();
    assert_eq!(pairs, tree.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(format!("{all:?}"), format!("{tree:?}"));
}

#[test]
fn equality_and_order_go_by_content() {
    assert_eq!(backed(&[("a", 1), ("b", 2)]), backed(&[("b", 2), ("a", 1)]));
    assert_ne!(backed(&[("a", 1)]), backed(&[("a", 2)]));
    assert_ne!(backed(&[("a", 1)]), backed(&[("b", 1)]));
    assert_ne!(backed(&[("a", 1)]), ServicePorts::from([(key("a"), Vec::new())]));
    assert!(backed(&[("a", 1)]) < backed(&[("a", 2)]) && backed(&[("a", 2)]) < backed(&[("b", 1)]));
}

#[test]
fn what_is_put_in_or_taken_out_does_not_show_in_copies() {
    let before = backed(&[("api", 80)]);
    let mut all = before.clone();
    assert!(before.is_shared() && all.is_shared());
    all.insert(key("api"), vec![port(81)]);
    all.insert(key("aaa"), Vec::new());
    assert_eq!(all, ServicePorts::from([(key("aaa"), Vec::new()), (key("api"), vec![port(81)])]));
    assert_eq!(before, backed(&[("api", 80)]));
    assert!(!before.is_shared() && !all.is_shared());
    all.extend([(key("aaa"), vec![port(1)]), (key("aaa"), Vec::new())]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all.remove(&key("db")), None);
    assert_eq!(all.remove(&key("api")), Some(vec![port(81)]));
    assert_eq!(all, ServicePorts::from([(key("aaa"), Vec::new())]));
    all.clear();
    assert!(all.is_empty() && all == ServicePorts::new());
}
