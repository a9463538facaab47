//! What is asked at the Secret is done once, by who leads, or refused with a reason; and what people are told.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::TrustDomain;
use serde_json::{Value, json};

use super::super::{Keeper, Settings};
use super::{Request, Requests};
use crate::ca::Audit;
use crate::ca::rotation::{Phase, Times};
use crate::ca::secret::tests::Server;
use crate::ca::secret::{ASKED, OWN, TOLD};

/// A leader over an API server of the test's own.
struct Leader {
    server: Server,
    keeper: Keeper,
    requests: Requests,
    home: tempfile::TempDir,
}

impl Leader {
    async fn new() -> Self {
        let server = Server::default();
        let home = tempfile::tempdir().unwrap();
        let (keeper, requests) = open(&server, &home, "a").await;
        Self { server, keeper, requests, home }
    }

    /// Asks, has the leader look once, and returns what it told.
    async fn ask(&mut self, text: &str) -> Value {
        self.server.annotate(OWN, ASKED, text);
        let _ = self.keeper.reload().await;
        self.requests.take_up(&self.keeper).await;
        assert!(self.server.annotation(OWN, ASKED).is_null(), "what was answered is still asked");
        self.told()
    }

    fn told(&self) -> Value {
        serde_json::from_str(self.server.annotation(OWN, TOLD).as_str().expect("told")).unwrap()
    }

    fn state(&self) -> (Phase, u64) {
        let state = self.keeper.signer().current().state();
        (state.phase, state.generation)
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.home.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn open(server: &Server, home: &tempfile::TempDir, replica: &str) -> (Keeper, Requests) {
    let settings = Settings {
        trust_domain: TrustDomain::default(),
        leaf_ttl: Duration::from_secs(3600),
        times: Times { lag: 0, nudge: 600 },
        confirm: 1,
    };
    let keeper = Keeper::in_secret(server.secrets(replica), settings, clock::wall()).await.unwrap();
    let audit = Audit::open(&home.path().join("audit.jsonl")).unwrap();
    (keeper, Requests::new(Arc::new(audit)))
}

fn request(id: &str, verb: &str, generation: u64) -> String {
    json!({ "id": id, "verb": verb, "generation": generation, "by": "jane" }).to_string()
}

#[tokio::test]
async fn a_request_is_carried_out_once_and_recorded_with_its_answer() {
    let mut leader = Leader::new().await;
    let told = leader.ask(&request("one", "rotate", 0)).await;
    assert_eq!(leader.state(), (Phase::Waiting, 1));
    assert_eq!((&told["answer"]["id"], &told["answer"]["outcome"]), (&json!("one"), &json!("done")));
    assert_eq!((&told["phase"], &told["generation"]), (&json!("waiting"), &json!(1)), "told with its result");
    // The same once more, also under the generation that is now: it was answered.
    for generation in [0, 1] {
        let told = leader.ask(&request("one", "rotate", generation)).await;
        assert_eq!((leader.state(), &told["answer"]["outcome"]), ((Phase::Waiting, 1), &json!("done")));
    }
    // Another leader knows that, too.
    let (keeper, requests) = open(&leader.server, &leader.home, "b").await;
    (leader.keeper, leader.requests) = (keeper, requests);
    drop(leader.ask(&request("one", "abort", 1)).await);
    assert_eq!(leader.state(), (Phase::Waiting, 1));
    drop(leader.ask(&request("two", "resume", 1)).await);
    assert_eq!(leader.keeper.signer().current().state().nudge, 1);
    drop(leader.ask(&request("three", "abort", 1)).await);
    assert_eq!(leader.state(), (Phase::Idle, 2));
    let audit = leader.audit();
    let rows: Vec<_> = audit.iter().map(|one| (one["asked"].as_str(), one["outcome"].as_str())).collect();
    let done = Some("carried-out");
    assert_eq!(rows, [(Some("rotate"), done), (Some("resume"), done), (Some("abort"), done)]);
    assert_eq!(audit[0]["caller"], "jane");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_a_reason_and_changes_nothing() {
    let mut leader = Leader::new().await;
    let long = request(&"x".repeat(2_000), "rotate", 0);
    let more = json!({ "id": "a", "verb": "rotate", "generation": 0, "by": "jane", "key": "k" }).to_string();
    let rows = [
        (request("a", "rotate", 7), "generation 0 by now, the request was for 7"),
        (request("b", "abort", 0), "no rotation is under way"),
        (request("c", "resume", 0), "no rotation is under way"),
        (request("d", "destroy", 0), "cannot be read (line 1"),
        (request("E!", "rotate", 0), "id is not 1 to 64"),
        (request("", "rotate", 0), "id is not 1 to 64"),
        (long, "longer than 1024 bytes"),
        (more, "cannot be read"),
        ("\u{1b}[31m".to_owned(), "cannot be read"),
    ];
    let count = rows.len();
    for (text, why) in rows {
        let told = leader.ask(&text).await;
        let answer = &told["answer"];
        assert_eq!(answer["outcome"], "refused", "row {text}");
        assert!(answer["why"].as_str().unwrap().contains(why), "row {text}: {answer}");
        assert_eq!(leader.state(), (Phase::Idle, 0), "row {text}");
    }
    assert!(leader.audit().iter().all(|one| one["outcome"] == "refused"));
    assert_eq!(leader.audit().len(), count);
    assert!(Request::parse(&request("fine-1", "rotate", 0)).is_ok());
    let rude = json!({ "id": "a", "verb": "rotate", "generation": 0, "by": "a\u{7}" }).to_string();
    assert!(Request::parse(&rude).unwrap_err().contains("control characters"));
}

#[tokio::test]
async fn people_are_told_what_is_news_and_no_key() {
    let mut leader = Leader::new().await;
    leader.requests.tell(&leader.keeper).await;
    let told = leader.told();
    assert_eq!(
        (&told["phase"], &told["kept"], &told["answer"]),
        (&json!("idle"), &json!("ours"), &Value::Null)
    );
    assert_eq!(told["roots"].as_array().unwrap().len(), 1);
    let text = leader.server.annotation(OWN, TOLD).to_string();
    assert!(!text.contains("PRIVATE") && !text.contains("BEGIN"), "{text}");
    assert!(leader.keeper.news().is_none(), "it was told");
    // A step of the rotation is news, but for the moments after what was told last.
    drop(leader.ask(&request("one", "rotate", 0)).await);
    assert!(leader.keeper.news().is_none());
    leader.keeper.known().behind_count = 3;
    assert!(leader.keeper.news().is_none(), "news come at their pace");
    let mut old = leader.told();
    old["told_at"] = json!(1);
    leader.server.annotate(OWN, TOLD, &old.to_string());
    let _ = leader.keeper.reload().await;
    leader.requests.tell(&leader.keeper).await;
    let told = leader.told();
    assert_eq!((&told["behind"], &told["answer"]["id"]), (&json!(3), &json!("one")), "the answer stays");
}

#[tokio::test]
async fn nothing_is_told_while_the_secret_cannot_be_read() {
    let mut leader = Leader::new().await;
    leader.server.put(OWN, &[("ca-cert.pem", "nonsense")]);
    assert!(leader.keeper.reload().await, "it was read, if in vain");
    leader.keeper.known().is_readable = false;
    leader.requests.tell(&leader.keeper).await;
    assert!(leader.server.annotation(OWN, TOLD).is_null());
}
