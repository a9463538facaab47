//! Flags of the webhook.

use std::net::SocketAddr;

use clap::{ArgAction, Args};

/// The admission webhook; served only with `--source kube`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Webhook {
    /// Where the admission webhook is served, TLS only.
    #[arg(long, env = "AMBIT_WEBHOOK_LISTEN", value_name = "ADDRESS:PORT", default_value = "[::]:15017")]
    pub webhook_listen: SocketAddr,

    /// Name of the ValidatingWebhookConfiguration whose caBundle and failurePolicy the leader keeps right; nothing is kept
    /// if it is empty or there is none of that name.
    #[arg(
        long,
        env = "AMBIT_WEBHOOK_CONFIGURATION",
        value_name = "NAME",
        default_value = "istio-validator-istio-system"
    )]
    pub webhook_configuration: String,

    /// Whether objects are refused while the webhook cannot be asked, once it was seen to answer.
    #[arg(long, env = "AMBIT_WEBHOOK_FAIL_CLOSED", value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    pub webhook_fail_closed: bool,
}
