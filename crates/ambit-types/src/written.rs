//! Bodies of objects as people write them: the Gateway API's, the policy kinds of ours, and the kind of Istio's that
//! is imported as a route.
//!
//! Names and nesting are the manifest's, nothing is interpreted: the reader of manifests checks shapes, the control
//! plane gives them meaning. Numbers are as wide as JSON's, so that one out of range can be named.

mod egress;
mod gateway;
mod route;
mod traffic;
mod virtual_service;

pub use egress::{EgressAllow, EgressPolicy, EgressSelector};
pub use gateway::{
    AllowedRoutes, Expression, Gateway, GatewayAddress, GatewayClass, Grant, GrantFrom, GrantTo,
    Infrastructure, KindRef, LabelSelector, Listener, ListenerTls, LocalRef, RouteNamespaces, SecretRef,
};
pub use route::{
    BackendRef, CookieConfig, Cors, Filter, Fraction, GrpcMatch, GrpcMethod, GrpcRoute, GrpcRule, Header,
    HeaderConfig, HeaderModifier, HttpMatch, HttpRoute, HttpRule, Mirror, NamedMatch, ObjectRef, ParentRef,
    PathMatch, PathModifier, Redirect, Retry, Rewrite, SessionPersistence, StreamRule, TcpRoute, Timeouts,
    TlsRoute,
};
pub use traffic::{
    Abort, Backoff, Balance, Budget, Connections, Delay, Fault, GlobalLimit, HashKey, LimitKey, LocalLimit,
    Outlier, PolicyTarget, RateLimit, RetryPolicy, ServiceRef, SlowStart, TrafficPolicy,
};
pub use virtual_service::{
    Decimal, Given, Percentage, StringMatch, VirtualAbort, VirtualCors, VirtualDelay, VirtualDestination,
    VirtualFault, VirtualHeaderChange, VirtualHeaders, VirtualMatch, VirtualPort, VirtualRedirect,
    VirtualRetries, VirtualRewrite, VirtualRoute, VirtualRule, VirtualService,
};

use serde::{Deserialize, Deserializer};

/// Declares structs of optional fields and lists that are read leniently about absence: null is absent.
macro_rules! bodies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
            #[serde(default, rename_all = "camelCase")]
            pub struct $name {
                $(
                    $(#[$doc])*
                    #[serde(deserialize_with = "crate::written::or_default", skip_serializing_if = "crate::written::is_default")]
                    pub $field: $type,
                )*
            }
        )+
    };
}
use bodies;

/// Reads `null` as the default, as the API server does for a field that is there but holds nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
