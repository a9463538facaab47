//! Verdicts, bounds and caches, against an API server whose answers are written down here.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Limits, Reviewer, Verdict};
use crate::ca::authn::TokenFault;

/// An API server that answers reviews with what it is told to, once it is let.
#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<(StatusCode, Value)>>,
    reviews: Arc<AtomicUsize>,
    asked: Arc<Mutex<Option<Value>>>,
    /// Answers that may go out.
    let_out: Arc<Semaphore>,
}

impl Server {
    fn new(status: Value) -> Self {
        Self {
            answer: Arc::new(Mutex::new((StatusCode::CREATED, status))),
            reviews: Arc::default(),
            asked: Arc::default(),
            let_out: Arc::new(Semaphore::new(10_000)),
        }
    }

    fn answers(&self, code: StatusCode, status: Value) {
        *self.answer.lock().unwrap() = (code, status);
    }

    fn reviewer(&self, limits: Limits) -> Reviewer {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.serve(request).await }
        });
        Reviewer::new(kube::Client::new(service, "default"), "istio-ca".to_owned(), limits)
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        *self.asked.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
        self.reviews.fetch_add(1, Ordering::SeqCst);
        self.let_out.acquire().await.unwrap().forget();
        let (code, status) = self.answer.lock().unwrap().clone();
        if code == StatusCode::GATEWAY_TIMEOUT {
            return Err(std::io::Error::other("connection refused"));
        }
        let body = match code.is_success() {
            true => json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
                "status": status,
            }),
            false => json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code.as_u16(),
                "reason": "Forbidden", "message": "no",
            }),
        };
        let bytes = serde_json::to_vec(&body).unwrap();
        Ok(Response::builder().status(code).body(Body::from(bytes)).unwrap())
    }

    fn reviews(&self) -> usize {
        self.reviews.load(Ordering::SeqCst)
    }
}

fn wall() -> Duration {
    ambit_runtime::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap()
}

/// A token whose own words nobody has signed.
fn token(name: &str, lives: Duration) -> String {
    let claims = json!({ "sub": name, "exp": (wall() + lives).as_secs() });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", encode(b"{}"), encode(claims.to_string().as_bytes()), encode(b"signature"))
}

const HOUR: Duration = Duration::from_secs(3600);

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["istio-ca"],
        "user": {
            "username": "system:serviceaccount:istio-system:ztunnel",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["ztunnel-x"],
                "authentication.kubernetes.io/pod-uid": ["u1"],
                "authentication.kubernetes.io/node-name": ["n1"],
                "authentication.kubernetes.io/node-uid": ["n1-uid"],
            },
        },
    })
}

/// The same with one member replaced, by JSON pointer.
fn but(pointer: &str, value: Value) -> Value {
    let mut status = good();
    *status.pointer_mut(pointer).unwrap() = value;
    status
}

async fn ask(reviewer: &Reviewer, token: &str) -> Verdict {
    reviewer.verify(token, Some(IpAddr::from([10, 0, 0, 1])), wall()).await
}

#[tokio::test]
async fn a_token_that_the_server_vouches_for_says_who_calls() {
    let server = Server::new(good());
    let reviewer = server.reviewer(Limits::default());
    let token = token("z", HOUR);
    let read = ask(&reviewer, &token).await.unwrap();
    assert_eq!((&*read.namespace, &*read.service_account), ("istio-system", "ztunnel"));
    assert_eq!(
        (&*read.pod, &*read.pod_uid, &*read.node, &*read.node_uid),
        ("ztunnel-x", "u1", "n1", "n1-uid")
    );
    assert!(read.expires > wall() + HOUR - Duration::from_secs(10));
    let asked = server.asked.lock().unwrap().clone().unwrap();
    assert_eq!(asked["spec"], json!({ "audiences": ["istio-ca"], "token": token }));
}

#[tokio::test]
async fn every_doubt_is_a_refusal() {
    let extra = "/user/extra/authentication.kubernetes.io~1";
    let rows = [
        (json!({ "authenticated": false, "error": "token has expired" }), "token-not-authenticated"),
        (json!({}), "token-not-authenticated"),
        (but("/audiences", json!(["api"])), "token-audience"),
        // A server that knows nothing of audiences.
        (but("/audiences", json!(null)), "token-audience"),
        (but("/user/username", json!("kubernetes-admin")), "token-subject"),
        (but("/user/username", json!("system:serviceaccount:istio-system:")), "token-subject"),
        (but("/user/username", json!("system:serviceaccount:a:b:c")), "token-subject"),
        (but("/user/groups", json!(["system:authenticated"])), "token-subject"),
        (but(&format!("{extra}pod-uid"), json!([])), "token-unbound"),
        (but(&format!("{extra}pod-name"), json!(["a", "b"])), "token-malformed"),
    ];
    for (status, want) in rows {
        let reviewer = Server::new(status.clone()).reviewer(Limits::default());
        let fault = ask(&reviewer, &token("z", HOUR)).await.unwrap_err();
        assert_eq!(fault.check(), want, "{status}");
        assert_eq!(fault.code(), tonic::Code::Unauthenticated);
    }
    let reviewer = Server::new(good()).reviewer(Limits::default());
    assert_eq!(ask(&reviewer, "").await.unwrap_err(), TokenFault::Missing);
    assert_eq!(ask(&reviewer, "not-a-jwt").await.unwrap_err().check(), "token-malformed");
    let over = token("z", Duration::ZERO);
    assert_eq!(ask(&reviewer, &over).await.unwrap_err().check(), "token-expired");
}

#[tokio::test]
async fn a_token_without_a_node_is_left_to_be_placed_by_its_pod() {
    let mut status = good();
    let extra = status["user"]["extra"].as_object_mut().unwrap();
    extra.retain(|name, _| !name.contains("node"));
    let reviewer = Server::new(status).reviewer(Limits::default());
    let read = ask(&reviewer, &token("z", HOUR)).await.unwrap();
    assert_eq!((&*read.node, &*read.node_uid, &*read.pod_uid), ("", "", "u1"));
}

#[tokio::test]
async fn verdicts_are_kept_for_a_while_and_no_longer() {
    let server = Server::new(good());
    let short = Limits {
        good: Duration::from_millis(150),
        bad: Duration::from_millis(150),
        away: Duration::from_millis(150),
        ..Limits::default()
    };
    let reviewer = server.reviewer(short);
    let token = token("z", HOUR);
    for status in [good(), json!({ "authenticated": false })] {
        server.answers(StatusCode::CREATED, status);
        let before = server.reviews();
        let first = ask(&reviewer, &token).await;
        assert_eq!(ask(&reviewer, &token).await, first);
        assert_eq!(server.reviews(), before + 1, "the second is answered from memory");
        tokio::time::sleep(Duration::from_millis(160)).await;
    }
    server.answers(StatusCode::CREATED, good());
    assert!(ask(&reviewer, &token).await.is_ok(), "a bad verdict is not for ever");
    assert_eq!(server.reviews(), 3);
}

#[tokio::test]
async fn while_the_server_is_away_known_tokens_go_on_and_others_are_not_believed() {
    let server = Server::new(good());
    let reviewer = server.reviewer(Limits::default());
    let known = token("known", HOUR);
    ask(&reviewer, &known).await.unwrap();
    for code in [StatusCode::GATEWAY_TIMEOUT, StatusCode::FORBIDDEN] {
        server.answers(code, Value::Null);
        assert!(ask(&reviewer, &known).await.is_ok());
        let other = token(code.as_str(), HOUR);
        let fault = ask(&reviewer, &other).await.unwrap_err();
        assert_eq!((fault.check(), fault.code()), ("token-unreviewed", tonic::Code::Unavailable));
        assert!(!fault.to_string().contains(&other), "no token is ever written down");
    }
}

#[tokio::test]
async fn a_review_that_takes_too_long_is_given_up() {
    let server = Server::new(good());
    server.let_out.forget_permits(10_000);
    let reviewer = server.reviewer(Limits { timeout: Duration::from_millis(20), ..Limits::default() });
    let fault = ask(&reviewer, &token("z", HOUR)).await.unwrap_err();
    assert!(fault.to_string().contains("did not answer within 20ms"), "{fault}");
}

#[tokio::test]
async fn calls_with_one_token_share_a_review_and_a_flood_is_bounded() {
    let server = Server::new(good());
    server.let_out.forget_permits(10_000);
    let limits = Limits { reviews: 6, reviews_of_address: 4, ..Limits::default() };
    let reviewer = Arc::new(server.reviewer(limits));
    let start = |token: String, address: u8| {
        let reviewer = reviewer.clone();
        #[expect(clippy::disallowed_methods, reason = "a test")]
        tokio::spawn(
            async move { reviewer.verify(&token, Some(IpAddr::from([10, 0, 0, address])), wall()).await },
        )
    };
    let same = token("same", HOUR);
    let together: Vec<_> = (0..20).map(|_| start(same.clone(), 1)).collect();
    let mut mine: Vec<_> = (0..3).map(|n| start(token(&format!("mine-{n}"), HOUR), 1)).collect();
    while server.reviews() < 4 {
        tokio::task::yield_now().await;
    }
    // Four of this address are under way; a fifth is refused, and another address is heard.
    let fault = ask(&reviewer, &token("fifth", HOUR)).await.unwrap_err();
    assert_eq!((fault.check(), fault.code()), ("token-reviews", tonic::Code::ResourceExhausted));
    mine.extend((0..2).map(|n| start(token(&format!("other-{n}"), HOUR), 2)));
    while server.reviews() < 6 {
        tokio::task::yield_now().await;
    }
    let third = IpAddr::from([10, 0, 0, 3]);
    let fault = reviewer.verify(&token("seventh", HOUR), Some(third), wall()).await.unwrap_err();
    assert_eq!(fault.check(), "token-reviews");
    server.let_out.add_permits(100);
    for call in together.into_iter().chain(mine) {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(server.reviews(), 6, "twenty calls with one token were one review");
    assert!(ask(&reviewer, &token("later", HOUR)).await.is_ok(), "slots are given back");
    assert!(reviewer.state.lock().unwrap().under_way.is_empty());
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_slot_back() {
    let server = Server::new(good());
    server.let_out.forget_permits(10_000);
    let reviewer = server.reviewer(Limits { reviews: 1, ..Limits::default() });
    let gone = token("gone", HOUR);
    let call = tokio::time::timeout(Duration::from_millis(50), ask(&reviewer, &gone));
    assert!(call.await.is_err());
    server.let_out.add_permits(10);
    assert!(ask(&reviewer, &token("next", HOUR)).await.is_ok());
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let server = Server::new(good());
    let reviewer = server.reviewer(Limits { good_count: 10, ..Limits::default() });
    for n in 0..50 {
        ask(&reviewer, &token(&n.to_string(), HOUR)).await.unwrap();
    }
    let state = reviewer.state.lock().unwrap();
    assert_eq!((state.good.verdicts.len(), state.good.order.len()), (10, 10));
}
