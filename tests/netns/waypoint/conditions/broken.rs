//! Manifests that are none, each with the place of its fault.

/// A manifest that is none: the line and the field of its fault.
pub(super) struct Broken {
    pub(super) line: u32,
    pub(super) field: &'static str,
    pub(super) manifest: &'static str,
}

/// Each takes the place of the route that is in force, or stands beside it.
pub(super) const BROKEN: [Broken; 14] = [
    Broken {
        line: 7,
        field: "spec.rules[0].matchez",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - matchez: [{path: {value: /good}}]
    backendRefs: [{name: a, port: 80}]
",
    },
    Broken {
        line: 5,
        field: "spec.parentRefs[0].group",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: a, port: 80}]}]
",
    },
    Broken {
        line: 8,
        field: "spec.rules[0].timeouts.request",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: a, port: 80}]
    timeouts: {request: soon}
",
    },
    Broken {
        line: 9,
        field: "spec.rules[0].backendRefs[1].weight",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs:
    - {name: a, port: 80}
    - {name: a, port: 80, weight: -1}
",
    },
    Broken {
        line: 7,
        field: "spec.rules[0].backendRefs[0].port",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: a, port: 70000}]
",
    },
    Broken {
        line: 8,
        field: "spec.rules[0].filters[0].type",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: a, port: 80}]
    filters: [{type: UrlRewrite, urlRewrite: {hostname: b.example}}]
",
    },
    Broken {
        line: 8,
        field: "spec.rules[0].filters[0].urlRewrite",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: a, port: 80}]
    filters: [{type: URLRewrite}]
",
    },
    Broken {
        line: 7,
        field: "spec.rules[0].matches[0].method",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - matches: [{method: Get}]
    backendRefs: [{name: a, port: 80}]
",
    },
    Broken {
        line: 8,
        field: "spec.rules[0].retry.codes[0]",
        manifest: "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: a, port: 80}]
    retry: {codes: [200]}
",
    },
    Broken {
        line: 6,
        field: "spec.retry.atempts",
        manifest: "apiVersion: ambit.internal/v1
kind: TrafficPolicy
metadata: {name: calm, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  retry: {atempts: 3}
",
    },
    Broken {
        line: 6,
        field: "spec.fault.abort.percent",
        manifest: "apiVersion: ambit.internal/v1
kind: TrafficPolicy
metadata: {name: calm, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  fault: {abort: {httpStatus: 503, percent: 101}}
",
    },
    Broken {
        line: 6,
        field: "spec.rateLimits[0].local.interval",
        manifest: "apiVersion: ambit.internal/v1
kind: TrafficPolicy
metadata: {name: calm, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  rateLimits: [{name: all, local: {requests: 5, interval: 1 minute}}]
",
    },
    Broken {
        line: 6,
        field: "spec.action",
        manifest: "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: ALLOWED
",
    },
    Broken {
        line: 6,
        field: "spec.jwtRules[0].issuer",
        manifest: "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  jwtRules: [{audiences: [shop]}]
",
    },
];
