//! Gateway, GatewayClass and ReferenceGrant.

use std::collections::BTreeMap;

use super::bodies;

bodies! {
    /// The body of a `GatewayClass`.
    GatewayClass {
        /// Who carries its gateways out, such as `istio.io/mesh-controller`.
        controller_name: String,
        /// For people.
        description: Option<String>,
        /// Settings of the controller.
        parameters_ref: Option<SecretRef>,
    }

    /// The body of a `Gateway`.
    Gateway {
        /// Its class.
        gateway_class_name: String,
        /// Where it listens.
        listeners: Vec<Listener>,
        /// Addresses asked for.
        addresses: Vec<GatewayAddress>,
        /// Labels and annotations of what is made for it.
        infrastructure: Option<Infrastructure>,
    }

    /// One port of a gateway.
    Listener {
        /// Its name, unique in the gateway.
        name: String,
        /// Host names it is for.
        hostname: Option<String>,
        /// Its port.
        port: i64,
        /// `HBONE` for a waypoint; else `HTTP`, `HTTPS`, `TLS`, `TCP`, or a name with a domain.
        protocol: String,
        /// How TLS ends.
        tls: Option<ListenerTls>,
        /// Who may attach to it.
        allowed_routes: Option<AllowedRoutes>,
    }

    /// How TLS ends at a listener.
    ListenerTls {
        /// `Terminate` or `Passthrough`.
        mode: Option<String>,
        /// Certificates.
        certificate_refs: Vec<SecretRef>,
        /// Further settings.
        options: BTreeMap<String, String>,
    }

    /// Who may attach to a listener.
    AllowedRoutes {
        /// From which namespaces.
        namespaces: Option<RouteNamespaces>,
        /// Which kinds; none given means those that fit the protocol.
        kinds: Vec<KindRef>,
    }

    /// Namespaces that may attach.
    RouteNamespaces {
        /// `Same` (the default), `All`, `Selector` or `None`.
        from: Option<String>,
        /// Labels of the namespaces, for `Selector`.
        selector: Option<LabelSelector>,
    }

    /// Labels wanted.
    LabelSelector {
        /// Labels with exactly these values.
        match_labels: BTreeMap<String, String>,
        /// Further conditions.
        match_expressions: Vec<Expression>,
    }

    /// A condition on a label.
    Expression {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        operator: String,
        /// Values, for the first two.
        values: Vec<String>,
    }

    /// A kind of object.
    KindRef {
        /// Its group; absent means the Gateway API's.
        group: Option<String>,
        /// Its kind.
        kind: String,
    }

    /// An address asked for or given.
    GatewayAddress {
        /// `IPAddress` (the default) or `Hostname`.
        r#type: Option<String>,
        /// The address.
        value: String,
    }

    /// Labels and annotations of what is made for a gateway.
    Infrastructure {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Settings of the controller.
        parameters_ref: Option<LocalRef>,
    }

    /// An object of the same namespace.
    LocalRef {
        /// Its group.
        group: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    }

    /// An object that may be in another namespace.
    SecretRef {
        /// Its group; absent means core.
        group: Option<String>,
        /// Its kind; absent means Secret.
        kind: Option<String>,
        /// Its name.
        name: String,
        /// Its namespace; absent means that of the object that refers to it.
        namespace: Option<String>,
    }

    /// The body of a `ReferenceGrant`: objects of its namespace that others may refer to.
    Grant {
        /// Who may refer; any of these.
        from: Vec<GrantFrom>,
        /// To what; any of these.
        to: Vec<GrantTo>,
    }

    /// Who may refer.
    GrantFrom {
        /// Group of the kind.
        group: String,
        /// Kind, such as HTTPRoute.
        kind: String,
        /// Its namespace.
        namespace: String,
    }

    /// What may be referred to.
    GrantTo {
        /// Group of the kind; empty means core.
        group: String,
        /// Kind, such as Service.
        kind: String,
        /// Its name; absent means every object of the kind.
        name: Option<String>,
    }
}
