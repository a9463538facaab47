//! What is in force as what is kept changes, and a whole rotation with restarts in between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_control::Settings as IndexSettings;
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_types::TrustDomain;
use tokio::sync::watch;

use super::{Command, Keeper, Seen, Settings, Store, certificates_only, keep_file};
use crate::ca::Audit;
use crate::ca::material::{self, Issuing};
use crate::ca::rotation::{Phase, Ring, Times};
use crate::ca::secret::tests::Server;
use crate::push::Publisher;
use crate::world::World;

fn settings() -> Settings {
    let times = Times { lag: 0, nudge: 600 };
    let leaf_ttl = Duration::from_secs(3600);
    Settings { trust_domain: TrustDomain::default(), leaf_ttl, times, confirm: 1 }
}

fn on_disk(folder: &Path) -> Keeper {
    Keeper::on_disk(&folder.join("ca"), settings(), clock::wall()).unwrap()
}

/// A mesh without proxies: nobody is ever behind.
fn seen() -> Seen {
    Seen { world: Arc::new(World::new(IndexSettings::default())), publisher: Arc::default() }
}

fn made() -> Issuing {
    material::make(&TrustDomain::default(), clock::wall()).unwrap().0
}

/// What is wrong, and what is in force.
fn stands(keeper: &Keeper) -> (Option<String>, Ring<Issuing>) {
    let known = keeper.known();
    (known.problem.clone(), known.ring.clone())
}

fn state(keeper: &Keeper) -> (Phase, u64) {
    let state = keeper.signer().current().state();
    (state.phase, state.generation)
}

/// Takes the next step, as the follower does.
async fn step(keeper: &Keeper) {
    let mut round = super::Round::new(&keeper.store);
    round.look(keeper, &seen(), true).await;
}

#[tokio::test]
async fn a_rotation_on_disk_goes_on_wherever_the_program_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let keeper = on_disk(home.path());
    let old = keeper.signer().current().roots_pem().to_owned();
    keeper.carry_out(Command::Rotate).await.unwrap();
    assert_eq!(state(&keeper), (Phase::Waiting, 1));
    let refused = keeper.carry_out(Command::Rotate).await.unwrap_err();
    assert!(refused.contains("under way (waiting)"), "{refused}");

    // Each keeper stands for a new process.
    let keeper = on_disk(home.path());
    assert_eq!(state(&keeper), (Phase::Waiting, 1));
    let both = keeper.signer().current().roots_pem().to_owned();
    assert!(both.starts_with(&old) && both.len() > old.len(), "the old root signs, so it comes first");
    step(&keeper).await;
    let keeper = on_disk(home.path());
    assert_eq!(state(&keeper), (Phase::Reissuing, 2));
    let both = keeper.signer().current().roots_pem().to_owned();
    assert!(both.ends_with(&old) && both.len() > old.len(), "the new root comes first");
    step(&keeper).await;
    let keeper = on_disk(home.path());
    assert_eq!(state(&keeper), (Phase::Idle, 3));
    assert_eq!(format!("{}{old}", keeper.signer().current().roots_pem()), both, "one root is left");
    for key in ["root-key.pem", "intermediate-key.pem"] {
        assert!(!home.path().join("ca").join(key).exists(), "{key} is of the old authority");
    }
}

#[tokio::test]
async fn an_aborted_rotation_leaves_the_old_root() {
    let home = tempfile::tempdir().unwrap();
    let keeper = on_disk(home.path());
    let old = keeper.signer().current().roots_pem().to_owned();
    assert!(keeper.carry_out(Command::Abort).await.is_err());
    keeper.carry_out(Command::Rotate).await.unwrap();
    step(&keeper).await;
    assert_eq!(state(&keeper).0, Phase::Reissuing);
    keeper.carry_out(Command::Abort).await.unwrap();
    assert_eq!(state(&keeper), (Phase::Reissuing, 3));
    step(&keeper).await;
    assert_eq!(keeper.signer().current().roots_pem(), old);
}

#[tokio::test]
async fn who_does_not_lead_takes_no_step() {
    let home = tempfile::tempdir().unwrap();
    let keeper = on_disk(home.path());
    keeper.carry_out(Command::Rotate).await.unwrap();
    let mut round = super::Round::new(&keeper.store);
    round.look(&keeper, &seen(), false).await;
    assert_eq!(state(&keeper), (Phase::Waiting, 1));
}

#[tokio::test]
async fn the_published_bundle_changes_with_every_generation_and_the_file_follows() {
    let home = tempfile::tempdir().unwrap();
    let keeper = on_disk(home.path());
    let mut bundle = keeper.bundle_changes();
    let first = bundle.borrow_and_update().clone();
    assert_eq!(*first, *keeper.signer().current().roots_pem());
    let (drain, path) = (Drain::new(), home.path().join("root-cert.pem"));
    drop(ambit_runtime::tasks::spawn(
        "file",
        keep_file(path.clone(), keeper.bundle_changes(), drain.clone()),
    ));
    let (_leads, leader) = watch::channel(true);
    let audit = Arc::new(Audit::open(&home.path().join("audit.jsonl")).unwrap());
    let following = keeper.clone().follow(seen(), audit, leader, drain.clone());
    drop(ambit_runtime::tasks::spawn("follow", following));
    keeper.command(Command::Rotate).await.unwrap();
    let ended = |text: &Arc<str>| text.starts_with("# Roots of trust, generation 3.0\n");
    let last = tokio::time::timeout(Duration::from_secs(20), bundle.wait_for(ended)).await;
    let last = last.expect("a mesh without proxies waits for nobody").unwrap().clone();
    assert_eq!(certificates_only(&last), keeper.signer().current().roots_pem());
    let written = async {
        while std::fs::read_to_string(&path).ok().as_deref() != Some(&*last) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("the file has the last bundle");
    _ = drain.finish(Duration::ZERO).await;
}

async fn in_secret(server: &Server, replica: &str) -> Keeper {
    Keeper::in_secret(server.secrets(replica), settings(), clock::wall()).await.unwrap()
}

#[tokio::test]
async fn replicas_follow_each_other_and_one_of_two_steps_counts() {
    let server = Server::default();
    let (one, two) = (in_secret(&server, "a").await, in_secret(&server, "b").await);
    one.carry_out(Command::Rotate).await.unwrap();
    assert_eq!(state(&two), (Phase::Idle, 0));
    two.reload().await;
    assert_eq!(state(&two), (Phase::Waiting, 1));
    step(&one).await;
    // The other still has the version from before: its step is refused, and it takes up what is kept.
    step(&two).await;
    assert!(two.known().problem.as_deref().unwrap().contains("changed meanwhile"));
    two.reload().await;
    assert_eq!((state(&two), two.known().problem.clone()), ((Phase::Reissuing, 2), None));
    assert_eq!(one.signer().current().roots_pem(), two.signer().current().roots_pem());
}

#[tokio::test]
async fn a_broken_secret_changes_nothing_and_is_told() {
    let server = Server::default();
    let keeper = in_secret(&server, "a").await;
    let before = keeper.signer().current();
    server.put("istio-ca-secret", &[("ca-cert.pem", "nonsense")]);
    keeper.reload().await;
    assert!(Arc::ptr_eq(&before, &keeper.signer().current()));
    assert!(keeper.status()["problem"].as_str().unwrap().contains("istio-system/istio-ca-secret"));
}

#[tokio::test]
async fn a_lost_secret_is_written_anew_by_who_runs_and_taken_up_by_who_starts() {
    let server = Server::default();
    let (one, two) = (in_secret(&server, "a").await, in_secret(&server, "b").await);
    one.carry_out(Command::Rotate).await.unwrap();
    two.reload().await;
    let (before, ring) = (one.signer().current(), one.known().ring.clone());
    server.publish(Some(before.roots_pem()));
    server.remove("istio-ca-secret");
    // Nobody who starts now makes another root in its place.
    let started = Keeper::in_secret(server.secrets("c"), settings(), clock::wall()).await;
    assert!(started.unwrap_err().to_string().contains("is gone"));
    one.reload().await;
    assert_eq!(one.known().problem, None);
    assert!(Arc::ptr_eq(&before, &one.signer().current()));
    two.reload().await;
    assert_eq!(stands(&two), (None, ring.clone()));
    assert_eq!(in_secret(&server, "c").await.known().ring, ring);
    // The rotation goes on from what was written anew.
    step(&one).await;
    assert_eq!(state(&one), (Phase::Reissuing, 2));
}

#[tokio::test]
async fn who_was_away_leaves_a_lost_secret_to_others_for_one_look() {
    let server = Server::default();
    let keeper = in_secret(&server, "a").await;
    server.remove("istio-ca-secret");
    keeper.signer().confirm(clock::monotonic().checked_sub(Duration::from_secs(21)).unwrap());
    keeper.reload().await;
    assert!(keeper.known().problem.as_deref().unwrap().contains("is gone"));
    assert!(server.objects.lock().unwrap().is_empty(), "it was written by who may hold an older one");
    keeper.reload().await;
    assert_eq!((keeper.known().problem.clone(), server.objects.lock().unwrap().len()), (None, 1));
}

#[tokio::test]
async fn another_root_in_the_secret_is_not_taken_up_and_deleting_it_brings_ours_back() {
    let server = Server::default();
    let slow = Settings { times: Times::REPLICAS, ..settings() };
    let keeper = Keeper::in_secret(server.secrets("a"), slow, clock::wall()).await.unwrap();
    let (before, ours) = (keeper.signer().current(), keeper.known().ring.clone());
    let other = made();
    let members = [
        ("ca-cert.pem", other.certificate.as_str()),
        ("ca-key.pem", other.key.as_str()),
        ("cert-chain.pem", other.chain.as_str()),
        ("root-cert.pem", other.roots.as_str()),
    ];
    for rotation in ["", r#"{"phase":"idle","generation":7,"since":1}"#] {
        let mut members = members.to_vec();
        members.extend((!rotation.is_empty()).then_some(("rotation.json", rotation)));
        server.put("istio-ca-secret", &members);
        keeper.reload().await;
        assert!(keeper.known().problem.as_deref().unwrap().contains("does not come from"), "{rotation}");
        assert!(Arc::ptr_eq(&before, &keeper.signer().current()), "{rotation}");
    }
    server.remove("istio-ca-secret");
    keeper.reload().await;
    assert_eq!(stands(&keeper), (None, ours.clone()));
    assert_eq!(server.secrets("b").read().await.unwrap().unwrap().ring, ours);
}

#[tokio::test]
async fn a_plugged_authority_that_is_gone_is_not_ours_to_write() {
    let server = Server::default();
    let of = made();
    let members = [
        ("ca-cert.pem", of.certificate.as_str()),
        ("ca-key.pem", of.key.as_str()),
        ("cert-chain.pem", of.chain.as_str()),
        ("root-cert.pem", of.roots.as_str()),
    ];
    server.put("cacerts", &members);
    let keeper = in_secret(&server, "a").await;
    server.remove("cacerts");
    keeper.reload().await;
    assert!(keeper.known().problem.as_deref().unwrap().contains("is gone"));
    assert!(server.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_plugged_authority_is_taken_up_only_where_old_and_new_overlap() {
    let server = Server::default();
    let plug = |of: &Issuing, roots: &str| {
        server.put(
            "cacerts",
            &[
                ("ca-cert.pem", &of.certificate),
                ("ca-key.pem", &of.key),
                ("cert-chain.pem", &of.chain),
                ("root-cert.pem", roots),
            ],
        );
    };
    let (old, new) = (made(), made());
    plug(&old, &old.roots);
    let keeper = in_secret(&server, "a").await;
    let signs = |keeper: &Keeper| keeper.known().ring.signing.certificate.clone();
    let both = format!("{}{}", old.roots, new.roots);
    let rows = [
        (&new, new.roots.clone(), &old, Some("lacks the root of the issuer in force")),
        (&new, both.clone(), &old, Some("is not in the trust bundle in force")),
        (&old, both.clone(), &old, None),
        (&new, both.clone(), &new, None),
        (&new, new.roots.clone(), &new, None),
    ];
    for (issuer, roots, in_force, problem) in rows {
        plug(issuer, &roots);
        keeper.reload().await;
        let told = keeper.known().problem.clone();
        assert_eq!(told.is_some(), problem.is_some(), "{told:?}");
        assert!(problem.is_none_or(|words| told.unwrap().contains(words)));
        assert_eq!(signs(&keeper), in_force.certificate);
    }
    assert!(keeper.carry_out(Command::Rotate).await.unwrap_err().contains("plugged in"));
}

#[tokio::test]
async fn who_cannot_confirm_its_authority_signs_nothing() {
    let server = Server::default();
    let keeper = in_secret(&server, "a").await;
    assert!(matches!(keeper.store, Store::Secret(_)));
    let identity = ambit_types::Identity::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let signer = keeper.signer();
    assert!(signer.asked(&"n1".into(), &identity).is_ok());
    let long_ago = clock::monotonic().checked_sub(Duration::from_secs(21)).unwrap();
    signer.confirm(long_ago);
    let stale = signer.asked(&"n1".into(), &identity).unwrap_err();
    assert!(stale.since > Duration::from_secs(20));
    keeper.reload().await;
    assert!(signer.asked(&"n1".into(), &identity).is_ok());
}

#[test]
fn a_seen_mesh_without_streams_is_empty() {
    let publisher = Arc::new(Publisher::default());
    let seen = Seen { publisher, ..seen() };
    assert!(seen.present().is_empty());
}

#[tokio::test]
async fn who_starts_early_in_a_step_publishes_the_bundle_of_the_step_before() {
    let server = Server::default();
    let slow = Settings { times: Times::REPLICAS, ..settings() };
    let open = async || Keeper::in_secret(server.secrets("a"), slow.clone(), clock::wall()).await.unwrap();
    let published = |keeper: &Keeper| keeper.bundle_changes().borrow().clone();
    let keeper = open().await;
    let before = published(&keeper);
    keeper.carry_out(Command::Rotate).await.unwrap();
    let restarted = open().await;
    assert_eq!(state(&restarted), (Phase::Waiting, 1));
    assert_eq!(published(&restarted), before);
    // Where nothing lags, the newest is published at once.
    let quick = Keeper::in_secret(server.secrets("a"), settings(), clock::wall()).await.unwrap();
    assert!(published(&quick).starts_with("# Roots of trust, generation 1.0\n"));
}
