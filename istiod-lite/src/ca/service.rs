//! `IstioCertificateService`: gathers the facts of a call, asks for the decision, signs, records, answers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_control::csr::{self, Answer, Caller, Check, Csr, Grant, Memory, Refusal, Request as Asked, Rules};
use ambit_net::grpc::services::istio_certificate_service_server::IstioCertificateService;
use ambit_runtime::clock;
use ambit_types::{Reason, Str};
use ambit_xds::node;
use ambit_xds::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use tracing::{error, info, warn};

use super::Audit;
use super::audit::Record;
use super::authn::{Token, TokenFault, Verifier};
use super::callers::{self, Admitted, Role};
use super::keeper::Signer;
use super::sign::{self, Issued};
use crate::world::World;

/// Longest identity and detail that is written down.
const TEXT_BYTES_MAX: usize = 512;
/// What a record says was asked for.
const CERTIFICATE: &str = "certificate";
const DISCOVERY: &str = "discovery";
/// Where a request names another identity than the caller's own.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// A caller of discovery that was admitted.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// What its token says.
    pub token: Token,
    /// Who it is.
    pub caller: Caller,
    /// What it may be.
    pub admitted: Admitted,
}

/// Everything that answers certificate requests and turns callers away.
#[derive(Debug)]
pub struct Gate {
    /// Verifies tokens.
    pub verifier: Verifier,
    /// What the operator decided.
    pub rules: Rules,
    /// Where outcomes are written.
    pub audit: Arc<Audit>,
    /// Nodes and pods.
    pub world: Arc<World>,
    memory: Mutex<Memory>,
}

impl Gate {
    /// A gate that remembers nothing yet.
    pub fn new(verifier: Verifier, rules: Rules, audit: Arc<Audit>, world: Arc<World>) -> Self {
        Self { verifier, rules, audit, world, memory: Mutex::default() }
    }

    /// Who calls, and what it may be, if the token is believed and the call comes from where it has to.
    ///
    /// # Errors
    /// The answer for the caller; the outcome is recorded.
    pub async fn admit(&self, headers: &MetadataMap, source: Option<IpAddr>) -> Result<Visitor, Status> {
        let token = self.token(DISCOVERY, headers, source).await?;
        let caller = caller(&token, source)?;
        let outcome = callers::recognise(&self.world.index(), &self.rules, &token, &caller);
        match outcome {
            Ok(admitted) => Ok(Visitor { token, caller, admitted }),
            Err(refusal) => Err(self.denied(&caller, &refusal)),
        }
    }

    /// What a visitor is, if it may be what it states.
    ///
    /// # Errors
    /// The answer for the caller; the outcome is recorded.
    pub fn role(&self, visitor: &Visitor, stated: &node::Caller) -> Result<Role, Status> {
        let outcome = callers::role(&self.world.index(), &visitor.admitted, &visitor.token, stated);
        outcome.map_err(|refusal| self.denied(&visitor.caller, &refusal))
    }

    /// Whether a visitor still may be what it is, but for its token.
    ///
    /// # Errors
    /// The answer for the caller; the outcome is recorded.
    pub fn still_trusted(&self, visitor: &Visitor, role: &Role) -> Result<(), Status> {
        let (token, caller) = (&visitor.token, &visitor.caller);
        let outcome = callers::still(&self.world.index(), &self.rules, token, caller, role);
        outcome.map_err(|refusal| self.denied(caller, &refusal))
    }

    /// Records a refusal of discovery. Of a caller that we believe and do not serve, the account is at fault.
    fn denied(&self, caller: &Caller, refusal: &Refusal) -> Status {
        let status = self.refused(DISCOVERY, caller, "", refusal);
        if refusal.check == Check::CallerAccount {
            return Status::permission_denied(status.message());
        }
        status
    }

    async fn token(
        &self,
        asked: &'static str,
        headers: &MetadataMap,
        source: Option<IpAddr>,
    ) -> Result<Token, Status> {
        let values = headers.get_all("authorization");
        let values: Vec<&[u8]> = values.iter().take(16).map(|value| value.as_bytes()).collect();
        let now = since_1970();
        let fault = match self.verifier.verify(&values, source, now).await {
            Ok(token) if self.verifier.places_by_pod() => {
                return Ok(callers::placed(&self.world.index(), token));
            }
            Ok(token) => return Ok(token),
            Err(fault) => fault,
        };
        metrics::counter!("ambit_callers_refused_total", "cause" => fault.check()).increment(1);
        let record = Record {
            outcome: "turned-away",
            code: Reason::IssuanceRefused.code(),
            check: fault.check(),
            detail: &shown(&fault.to_string()),
            ..record(asked, now, source)
        };
        if let Err(cause) = self.audit.record_stranger(now, record) {
            error!(%cause, "writing the audit log failed");
        }
        Err(Status::new(fault.code(), told(&fault)))
    }

    /// Records a refusal and makes its answer.
    pub fn refused(&self, asked: &'static str, caller: &Caller, identity: &str, refusal: &Refusal) -> Status {
        let check = refusal.check.as_str();
        match asked {
            CERTIFICATE => {
                metrics::counter!("ambit_certificate_issue_errors_total", "cause" => check).increment(1);
            }
            _ => metrics::counter!("ambit_callers_refused_total", "cause" => check).increment(1),
        }
        warn!(
            asked, check, detail = %shown(&refusal.detail), identity = %shown(identity), node = %caller.node,
            source = %caller.source, "refused"
        );
        let record = Record {
            outcome: "refused",
            caller: &format!("{}/{}", caller.namespace, caller.service_account),
            node: &caller.node,
            identity: &shown(identity),
            code: Reason::IssuanceRefused.code(),
            check,
            detail: &shown(&refusal.detail),
            ..record(asked, since_1970(), Some(caller.source))
        };
        if let Err(cause) = self.audit.record(&record) {
            error!(%cause, "writing the audit log failed");
        }
        let code = match refusal.check.answer() {
            Answer::Unauthenticated => Code::Unauthenticated,
            Answer::PermissionDenied => Code::PermissionDenied,
            Answer::InvalidArgument => Code::InvalidArgument,
            Answer::ResourceExhausted => Code::ResourceExhausted,
        };
        Status::new(code, refusal.to_string())
    }
}

/// Faults of a token in words that help its owner and nobody else.
fn told(fault: &TokenFault) -> String {
    format!("{}: check {} failed", Reason::IssuanceRefused, fault.check())
}

fn caller(token: &Token, source: Option<IpAddr>) -> Result<Caller, Status> {
    let source = source.ok_or_else(|| Status::internal("the caller's address is not known"))?;
    Ok(Caller {
        namespace: token.namespace.clone(),
        service_account: token.service_account.clone(),
        node: token.node.clone(),
        node_uid: token.node_uid.clone(),
        pod: token.pod.clone(),
        pod_uid: token.pod_uid.clone(),
        source,
    })
}

/// The certificate service.
#[derive(Debug, Clone)]
pub struct CertificateService {
    gate: Arc<Gate>,
    signer: Signer,
}

impl CertificateService {
    /// A service that asks `gate` and signs with the authority that is in force at `signer`.
    pub fn new(gate: Arc<Gate>, signer: Signer) -> Self {
        // There from the start: a rate of what nobody has counted yet is no number.
        metrics::counter!("ambit_certificates_issued_total").increment(0);
        Self { gate, signer }
    }

    async fn answer(
        &self,
        headers: &MetadataMap,
        source: Option<IpAddr>,
        request: &IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let gate = &*self.gate;
        let token = gate.token(CERTIFICATE, headers, source).await.inspect_err(|status| {
            if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) {
                // Nobody looked who it was.
                self.signer.disturbed();
            }
        })?;
        let caller = caller(&token, source)?;
        let refused = |named: &str, refusal: &Refusal| {
            self.signer.refused(&callers::possible_proxies(&token));
            gate.refused(CERTIFICATE, &caller, named, refusal)
        };
        let identity = impersonated(request).map_err(|refusal| refused("", &refusal))?;
        let read = super::csr::read(&request.csr);
        let csr = match read.csr {
            // A kind of key that is allowed and yet cannot be put into a certificate is the requester's affair too.
            Csr::Read(facts) if !sign::can_certify(&read.key_der) => {
                let algorithm = Str::from(format!("{:?} with unusual parameters", facts.key));
                Csr::Read(csr::Facts { key: csr::PublicKey::Other { algorithm }, ..facts })
            }
            csr => csr,
        };
        let asked = Asked { identity, validity_seconds: request.validity_duration, csr };
        let now = clock::wall();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let decided = {
            let mut memory = gate.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let index = gate.world.index();
            callers::recognise(&index, &gate.rules, &token, &caller).and_then(|admitted| {
                let rules = callers::rules_of(&admitted, &gate.rules, &caller, asked.identity.as_deref())?;
                let grant = csr::authorize(&*index, &rules, &mut memory, since, &caller, &asked)?;
                Ok((callers::proxy(&admitted, &token), grant))
            })
        };
        let named = asked.identity.as_deref().unwrap_or_default();
        let (proxy, grant) = decided.map_err(|refusal| refused(named, &refusal))?;
        let issued = self.issue(&proxy, &grant, &read.key_der, now)?;
        self.record_issued(&caller, (&grant.identity.to_string(), asked.validity_seconds), &issued, since)?;
        Ok(IstioCertificateResponse { cert_chain: issued.chain })
    }

    fn issue(&self, proxy: &Str, grant: &Grant, key_der: &[u8], now: SystemTime) -> Result<Issued, Status> {
        let authority = self.signer.asked(proxy, &grant.identity).map_err(|stale| {
            warn!(%stale, identity = %grant.identity, "nothing is signed");
            metrics::counter!("ambit_certificate_issue_errors_total", "cause" => "authority-stale")
                .increment(1);
            Status::unavailable(stale.to_string())
        })?;
        let issued = authority.issue(&grant.identity, key_der, grant.ttl, now).map_err(|cause| {
            error!(%cause, identity = %grant.identity, "making a certificate failed");
            Status::internal("the certificate could not be made")
        })?;
        self.signer.answered(&authority, proxy, &grant.identity);
        Ok(issued)
    }

    fn record_issued(
        &self,
        caller: &Caller,
        (identity, asked_seconds): (&str, i64),
        issued: &Issued,
        since: Duration,
    ) -> Result<(), Status> {
        let record = Record {
            outcome: "issued",
            caller: &format!("{}/{}", caller.namespace, caller.service_account),
            node: &caller.node,
            identity,
            serial: &issued.serial,
            asked_seconds: Some(asked_seconds),
            not_after: Some(issued.not_after),
            ..record(CERTIFICATE, since, Some(caller.source))
        };
        self.gate.audit.record(&record).map_err(|cause| {
            error!(%cause, "writing the audit log failed, so nothing is issued");
            Status::internal("the certificate could not be recorded")
        })?;
        metrics::counter!("ambit_certificates_issued_total").increment(1);
        let (serial, not_after) = (&issued.serial, issued.not_after);
        info!(identity, node = %caller.node, serial, not_after, "issued a certificate");
        Ok(())
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let source = request.remote_addr().map(|a| a.ip().to_canonical());
        let (headers, _, message) = request.into_parts();
        self.answer(&headers, source, &message).await.map(Response::new)
    }
}

/// The identity in the request's metadata; none if the caller asks for its own.
fn impersonated(request: &IstioCertificateRequest) -> Result<Option<Str>, Refusal> {
    let value = request.metadata.as_ref().and_then(|m| m.fields.get(IMPERSONATED));
    match value.map(|v| &v.kind) {
        None => Ok(None),
        Some(Some(Kind::StringValue(text))) => Ok(Some(Str::from(text.as_str()))),
        Some(_) => Err(Refusal { check: Check::Identity, detail: format!("{IMPERSONATED} is no text") }),
    }
}

/// A record that says nothing yet but what was asked, when and from where.
pub(super) fn record(asked: &'static str, now: Duration, source: Option<IpAddr>) -> Record<'static> {
    Record {
        time: (now.as_secs_f64() * 1000.0).round() / 1000.0,
        outcome: "",
        asked,
        source,
        caller: "",
        node: "",
        identity: "",
        serial: "",
        asked_seconds: None,
        not_after: None,
        code: "",
        check: "",
        detail: "",
        unrecorded: 0,
    }
}

fn since_1970() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A stranger's text, cut to a length that cannot flood the log.
fn shown(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
