//! What metrics, fields of the access log and paths of the admin sockets mean.

/// Metrics and what they mean.
pub(super) const METRICS: &[(&str, &str)] = &[
    (
        "ambit_admission_reviews_total",
        "Objects that the API server asked about before it stored them, by verdict",
    ),
    (
        "ambit_breakglass_admitted_total",
        "Connections that only a break-glass let in (AMB2305), with or without an identity, by namespace",
    ),
    ("ambit_breakglass_open", "1 for each `namespace` whose break-glass is in force at the node"),
    ("ambit_ca_proxies_behind", "Proxies that have not yet confirmed the bundle of the rotation under way"),
    (
        "ambit_cni_config_writes_total",
        "Times that the node's CNI configuration was written because our entry was not in it",
    ),
    ("ambit_cni_plugin_installed", "1 while the plugin and its entry are in the node's CNI configuration"),
    ("ambit_cni_plugin_requests_total", "Calls of the CNI plugin, by command and verdict"),
    ("ambit_events_suppressed_total", "Kubernetes Events that were not written because there were too many"),
    ("ambit_source_stale", "1 while some kind of object cannot be followed at the API server"),
    ("ambit_token_reviews_saved_total", "Callers whose token the API server had vouched for a moment before"),
    ("ambit_token_reviews_total", "Tokens that the API server was asked about"),
    (
        "ambit_callers_refused_total",
        "Calls that were refused before anything was asked of the CA or discovery, by the check that failed",
    ),
    ("ambit_capture_repairs_total", "Rules that were put right in a pod, by what had happened to them"),
    ("ambit_certificate_issue_errors_total", "Certificates that were not issued, by the check that failed"),
    ("ambit_certificates_issued_total", "Certificates issued"),
    ("ambit_certificates_received_total", "Certificates that the program was given: first ones and renewals"),
    ("ambit_config_changes_total", "Changes of what the nodes are served"),
    (
        "ambit_config_last_ack_timestamp_seconds",
        "When the node or waypoint last accepted configuration, in seconds since 1970",
    ),
    (
        "ambit_config_rejected_total",
        "Pieces of configuration that a node or waypoint refused, by kind; the last good one stays",
    ),
    ("ambit_config_revision", "Revision of the objects that are served"),
    (
        "ambit_config_acked_revision_least",
        "Least revision that a connected node or waypoint has answered everything up to",
    ),
    (
        "ambit_config_version_info",
        "Connected nodes and waypoints by the revision up to which they have answered everything, as `version`; \
         the 16 oldest revisions",
    ),
    (
        "ambit_control_plane_away_seconds",
        "For how long the control plane has not been heard; 0 while it is there",
    ),
    (
        "ambit_certificate_remaining_seconds",
        "What the certificates that the program holds have left of their life",
    ),
    (
        "ambit_certificate_remaining_ratio",
        "Least part that a certificate of the program has left of its life; renewal is near one half",
    ),
    (
        "ambit_clock_offset_seconds",
        "By how much the clock is ahead of the control plane's, at the last certificate; 0 within a second",
    ),
    (
        "ambit_conntrack_used_ratio",
        "Share of the connection tracking table that is in use, in the program's own network namespace",
    ),
    ("ambit_connections_open", "Connections that are open, by the path they take"),
    (
        "ambit_connections_refused_total",
        "Connections that were refused or cut, by code and by the policy that decided",
    ),
    (
        "ambit_connections_shed_total",
        "Connections to the control plane that were closed unheard, because it had too many",
    ),
    (
        "ambit_endpoint_retries_total",
        "Connections that went to another endpoint because one was not reached, by the code of why",
    ),
    ("ambit_fd_used_ratio", "Share of the descriptors that the program may have which are open"),
    (
        "ambit_flow_records_lost_total",
        "Flow records that the ring pushed out (`ring`), that a follower was too slow for (`follower`), that \
         whoever asked the control plane for them was too slow for (`asker`), or that were too long to be passed on \
         (`size`)",
    ),
    (
        "ambit_forwarded_identities_ignored_total",
        "Connections whose peer named a client without being a waypoint of the destination, so that it counts for nothing",
    ),
    (
        "ambit_handshake_seconds",
        "Time of TLS handshakes of tunnels, by our role in them and by the key exchange agreed on",
    ),
    ("ambit_handshakes_failed_total", "TLS handshakes with the control plane that failed"),
    (
        "ambit_lead_events_dropped_total",
        "Kubernetes Events that were not written because too many were waiting",
    ),
    ("ambit_lead_failures_total", "Objects that the leader could not write or read; each is tried again"),
    ("ambit_lead_writes_total", "Objects and statuses that the leader wrote, by kind"),
    ("ambit_log_records_lost_total", "Lines of the log that were dropped because the reader was too slow"),
    ("ambit_manifest_problems", "Manifests that are refused at the moment"),
    (
        "ambit_memory_used_ratio",
        "Share of its control group's memory that is resident; only where the group has a limit",
    ),
    (
        "ambit_metrics_overflow_total",
        "What was counted together because there were too many sets of labels, by family, or too many values of the label \
         `policy` or `namespace`",
    ),
    ("ambit_observe_attending", "Nodes and waypoints that tell the control plane what they see"),
    (
        "ambit_observe_pairs_dropped_total",
        "Connections and requests that a proxy told of and that are not its own: not counted, by why",
    ),
    (
        "ambit_observe_pairs_lost_total",
        "Connections and requests that were told to the control plane by their number only, because a proxy had too \
         many pairs to tell apart",
    ),
    (
        "ambit_plaintext_accepted_total",
        "Plaintext connections that were let in, by what their port asks for (`strict`, or `permissive`, which DISABLE \
         is too) and by what let them in: `permissive`, `probe`, or `breakglass` where no rule did",
    ),
    (
        "ambit_policy_shadow_denied_total",
        "Connections and requests that dry-run policies would have refused, by policy",
    ),
    (
        "ambit_policy_unresolved_refs",
        "Policies that apply to pods of the node, or at the waypoint, and are not held or not usable; nothing is allowed \
         there",
    ),
    ("ambit_root_remaining_seconds", "What the first root to run out has left of its life"),
    ("ambit_runtime_stall_seconds", "How late the program wakes a task, looked at each second"),
    (
        "ambit_selftest_breaches_total",
        "Attempts of the node's tests of itself that were let in and must not be, by attempt; enforcement does not work",
    ),
    (
        "ambit_selftest_last_run_timestamp_seconds",
        "When the node's last run of tests of itself ended, in seconds since 1970; before the first, when the program \
         started",
    ),
    (
        "ambit_selftest_result",
        "Whether the node's tests of itself went as they must: 1 or 0 an attempt, each minute",
    ),
    ("ambit_start_time_seconds", "When the program started, in seconds since 1970"),
    ("ambit_task_panics_total", "Tasks that ended by a panic, by their name"),
    (
        "ambit_trace_spans_dropped_total",
        "Spans that never arrived at the collector, by why: `queue` (it was full), `export` (it did not \
         take them in time), `rejected` (by the collector), `end` (the program ended)",
    ),
    ("ambit_trace_spans_exported_total", "Spans that the collector took"),
    ("ambit_waypoint_accept_errors_total", "Connections that the kernel could not hand over"),
    ("ambit_waypoint_attempts_total", "Attempts to have requests answered by an endpoint"),
    (
        "ambit_waypoint_authorizer_answers_total",
        "Answers of external authorizers by result, those that did not come among them",
    ),
    (
        "ambit_waypoint_clients_dismissed_total",
        "Client connections that were ended for what they did: `resets`, `control_frames`, or `stalled` \
         because the client took nothing",
    ),
    ("ambit_waypoint_connections_cut_total", "Open connections that a change no longer allows, by code"),
    (
        "ambit_waypoint_denials_total",
        "Requests and connections that a policy refused, by policy, kind of policy and code",
    ),
    ("ambit_waypoint_ejections_total", "Endpoints that were left out for their failures"),
    ("ambit_waypoint_jwks_fetches_total", "Fetches of key sets, by outcome"),
    (
        "ambit_waypoint_jwks_refused_total",
        "Rules whose keys are not kept: there are too many sets, or the set cannot be read",
    ),
    (
        "ambit_waypoint_mirrors_total",
        "Copies of requests by outcome: `sent`, `lost`, `overflow` (too many under way), `refused` (by a \
         policy)",
    ),
    ("ambit_waypoint_plaintext_connections_total", "Connections to endpoints that have no tunnel"),
    (
        "ambit_waypoint_protocol_violations_total",
        "HTTP/1.1 connections that were ended because of their framing or a slow head, by kind",
    ),
    ("ambit_waypoint_rate_limit_questions_total", "Questions to rate limit services, by outcome"),
    ("ambit_waypoint_retries_total", "Attempts beyond the first of each request"),
    (
        "ambit_waypoint_retry_budget_spent_total",
        "Requests that were not repeated because the budget was spent",
    ),
    ("ambit_waypoint_route_requests_total", "Requests by `route`, `rule` and `backend`"),
    (
        "ambit_waypoint_streams_refused_total",
        "Tunnel requests that were refused before there was anything to record, by code",
    ),
    ("ambit_waypoint_tunnels_refused_total", "Connections at the tunnel port that were refused, by code"),
    (
        "ambit_waypoint_upgraded_bytes_total",
        "Bytes on connections that were upgraded to another protocol, by direction",
    ),
    (
        "ambit_waypoint_unbound",
        "1 for each service, by `kind` and `service`, that asks for a waypoint which is absent or not ready; \
         connections to it are refused. Beyond 1000 of them the number of the rest, with `overflow`",
    ),
    ("ambit_waypoint_upgraded_idle_total", "Upgraded connections that were ended because nothing moved"),
    ("ambit_workloads_captured", "Pods that are captured, by `namespace`"),
    ("ambit_workloads_expected", "Pods whose labels ask for capture, by `namespace`"),
    ("ambit_xds_streams", "Discovery streams that are open"),
    ("ambit_zds_refused_total", "Programs that were refused as a ztunnel by the node agent"),
    ("ambit_ztunnel_connections", "ztunnels that are connected to the node agent"),
    ("istio_build", "1, with the program's version"),
    ("istio_request_bytes", "Bytes of requests' bodies; labels as below"),
    (
        "istio_request_duration_milliseconds",
        "From a request's head to the last byte of its response; labels as below",
    ),
    ("istio_request_messages_total", "gRPC messages that came from clients; labels as below"),
    ("istio_requests_total", "Requests that ended, each once however often it was sent; labels as below"),
    ("istio_response_bytes", "Bytes of responses' bodies; labels as below"),
    ("istio_response_messages_total", "gRPC messages that went to clients; labels as below"),
    ("istio_tcp_connections_closed_total", "Connections that ended; labels as below"),
    ("istio_tcp_connections_failed_total", "Connections that ended badly or were refused; labels as below"),
    ("istio_tcp_connections_opened_total", "Connections that began, refused ones too; labels as below"),
    (
        "istio_tcp_received_bytes_total",
        "Bytes that came from the client, for both reporters; labels as below",
    ),
    ("istio_tcp_sent_bytes_total", "Bytes that went to the client, for both reporters; labels as below"),
    ("istio_tcp_sockets_open", "Accepted sockets that are open; a tunnel's streams share one"),
    ("istio_xds_connection_terminations_total", "Ends of the discovery stream, by why"),
    ("istio_xds_message_bytes_total", "Bytes of the resources in messages of discovery, by type"),
    ("istio_xds_message_total", "Messages of discovery that came, by type"),
    ("process_cpu_seconds_total", "Time on processors, in the program and in the kernel for it"),
    ("process_max_fds", "Descriptors that the program may have"),
    ("process_open_fds", "Descriptors that are open"),
    ("process_resident_memory_bytes", "Memory of the program that is in RAM"),
    ("process_start_time_seconds", "When the program started, in seconds since 1970"),
    ("tokio_global_queue_depth", "Tasks that wait in the queue that all workers share"),
    ("tokio_num_alive_tasks", "Tasks that are alive"),
    ("tokio_num_workers", "Threads that run tasks"),
    ("tokio_worker_park_count_total", "Times that a thread had nothing to do, by `worker`"),
    ("tokio_worker_park_unpark_count_total", "Times that a thread went to sleep or woke up, by `worker`"),
    ("tokio_worker_total_busy_duration_seconds_total", "Time that a thread ran tasks, by `worker`"),
    ("workload_manager_active_proxy_count", "Pods that are served"),
    ("workload_manager_pending_proxy_count", "Pods that wait to be served"),
    ("workload_manager_proxies_started_total", "Pods that began to be served"),
    ("workload_manager_proxies_stopped_total", "Pods that ceased to be served"),
    (
        "ambit_admin_calls_cut_total",
        "Calls of an admin listener that were cut because they took too long or were too many",
    ),
    (
        "ambit_console_calls_refused_total",
        "Calls of the API that were answered with 503 because too many read or ask already",
    ),
    (
        "ambit_console_connections_refused_total",
        "Connections to the console that were refused because too many were open, in all or from one address",
    ),
    (
        "ambit_console_readers_cut_total",
        "Readers of the API that were cut because they took nothing of what they were sent",
    ),
    (
        "ambit_sealed_state_in_force",
        "1 while the node serves what it had sealed, until discovery is complete",
    ),
    ("ambit_sealed_state_refused_total", "Sealed states that were not used at a start, by code"),
    ("ambit_sealed_state_writes_total", "Sealed states that were written, by how that went"),
    ("ambit_tasks_alive", "Tasks that are alive in the program"),
    ("ambit_tunnel_connections", "Tunnels that pods of the node have opened"),
    ("ambit_tunnel_queue", "Connections that wait for a tunnel that is opening"),
    ("ambit_tunnel_streams", "Streams on those tunnels"),
    ("ambit_tunnels_replaced_total", "Tunnels that were given up for another one before a byte was sent"),
];

/// Fields of the access log of ztunnel and what they mean.
pub(super) const FIELDS: &[(&str, &str)] = &[
    ("src.addr", "The client's address and port"),
    ("src.workload", "The client's pod, else its canonical service"),
    ("src.namespace", "The client's namespace"),
    ("src.identity", "The client's SPIFFE identity; only where it was established"),
    ("src.cluster", "The client's cluster"),
    ("dst.addr", "The server's address and port, as they were reached"),
    ("dst.hbone_addr", "The address that the tunnel request named"),
    ("dst.service", "Host name of the service that was addressed"),
    ("dst.workload", "The server's pod, else its canonical service"),
    ("dst.namespace", "The server's namespace"),
    ("dst.identity", "The server's SPIFFE identity; only where it was established"),
    ("dst.cluster", "The server's cluster"),
    ("direction", "`inbound` or `outbound`, seen from the workload of this node"),
    ("bytes_sent", "Bytes that the workload of this node sent"),
    ("bytes_recv", "Bytes that the workload of this node received"),
    ("duration", "From accept to end, as text such as `12ms`"),
    ("error", "Failure in words; only on failure"),
    ("duration_ms", "The duration as a number of milliseconds"),
    ("code", "Reason code such as AMB2104, see [reasons](reasons.md)"),
    ("reason", "Its name such as `policy-denied`"),
    ("policy", "The policy that decided, as NAMESPACE/NAME"),
    ("path", "`local`, `hbone`, `waypoint`, `plaintext`, `probe` or `passthrough`"),
    (
        "client.identity",
        "On whose behalf `src` connected, where that is the waypoint of the server and says so; the server's side only",
    ),
    ("conn.id", "Connection id, 32 hex digits, the same in the records of both ends; `ambit why` takes it"),
    ("stale_for", "Seconds since the control plane was last heard; only while it is away"),
];

/// Fields of the access log of a waypoint, of requests, and what they mean.
pub(super) const REQUEST_FIELDS: &[(&str, &str)] = &[
    ("start_time", "When the request came"),
    ("route_name", "The route and its rule that took it"),
    ("method", "Its method"),
    ("path", "Its path as it came, without the query"),
    ("protocol", "`HTTP/1.1`, `HTTP/2` and the like; of a connection `tcp`"),
    ("response_code", "The status that the client got; 0 if it left before"),
    ("response_flags", "What went wrong, as Envoy spells it; `-` for nothing"),
    ("response_code_details", "The same in a word; `via_upstream` for an endpoint's answer"),
    ("bytes_received", "Bytes of the request's body"),
    ("bytes_sent", "Bytes of the response's body"),
    ("duration", "From the request's head to the last byte of the response, in milliseconds"),
    ("upstream_service_time", "From the request's head to that of the response, in milliseconds"),
    ("x_forwarded_for", "That header as it came"),
    ("user_agent", "That header"),
    ("request_id", "`x-request-id`"),
    ("authority", "The host as it came"),
    ("upstream_host", "Address of the endpoint it was sent to last"),
    ("upstream_cluster", "The service it was sent to"),
    ("downstream_local_address", "The address that the client called"),
    ("downstream_remote_address", "The client's address"),
    ("upstream_transport_failure_reason", "Why there was no connection to the endpoint, or why it broke off"),
    ("grpc_status", "The gRPC status, if one was told"),
    ("src.workload", "The client's pod, if its address and its certificate agree"),
    ("src.namespace", "Its namespace"),
    ("src.identity", "The client's SPIFFE identity, by its certificate"),
    ("dst.service", "Host name of the service that was called"),
    ("dst.workload", "The endpoint's pod"),
    ("dst.namespace", "Its namespace"),
    ("dst.identity", "Its SPIFFE identity; only where it was reached by a tunnel"),
    ("attempts", "How often it was sent"),
    ("code", "Reason code such as AMB2202, see [reasons](reasons.md)"),
    ("reason", "Its name such as `http-policy-denied`"),
    ("policy", "The policy that decided, also if it allowed, as NAMESPACE/NAME"),
    ("audit", "AUDIT policies that matched"),
    ("dry_run", "What dry-run policies would have done"),
    ("trace_id", "Id of its trace, 32 hex digits"),
    ("span_id", "Id of its span, 16 hex digits"),
    ("duration_ms", "As `duration`"),
    ("conn.id", "Connection id of the tunnel stream that brought it; the client's ztunnel records the same"),
    ("error", "Failure in words; only on failure"),
];

/// Paths of the admin sockets and what they answer.
pub(super) const PATHS: &[(&str, &str)] = &[
    ("/uninstall", "POST: takes the mesh off this node; GET: how far that is"),
    ("/healthz/live", "`alive` as long as the program answers at all"),
    ("/healthz/startup", "As `/healthz/ready`"),
    ("/healthz/ready", "200 once every part is ready; `?verbose` lists the parts as JSON"),
    ("/metrics", "Metrics in the Prometheus text format"),
    ("/stats/prometheus", "The same, where Istio's scrapers look"),
    ("/logging", "GET: the log filter; POST `?level=FILTER` replaces it until the program ends"),
    (
        "/config_dump",
        "What is known: workloads, services, policies, and of a waypoint its routes and what was refused; ztunnels and \
         waypoints add their certificates, never a key",
    ),
    ("/connections", "Connections that are open"),
    (
        "/certificates",
        "Certificates of the program's identities; a ztunnel adds their issuers and the roots they trust",
    ),
    (
        "/explain",
        "What would happen to a connection or request, hop by hop; POST a question as JSON: `source`, `destination`, \
         and `http` with `method`, `path`, `host`, `headers`",
    ),
    (
        "/flows",
        "Flow records, one JSON object a line, then a footer with what was lost; `?last=N`, `?follow`",
    ),
    (
        "/budget",
        "What the process uses: memory, processor time, descriptors, connections, flow records; and what it may",
    ),
    ("/pods", "The pods of the node with their state; `?uid=` picks one"),
    (
        "/selftest",
        "What the node's tests of itself came to, at the last run; null before the first has ended",
    ),
    ("/sync", "Revision of the objects, and what each node has acknowledged or refused"),
    ("/api/v1/workloads", "Workloads as nodes get them"),
    ("/api/v1/nodes", "Nodes and waypoints: connected, up to date, attached, with the first fault of each"),
    (
        "/api/v1/node",
        "One node or waypoint, `?name=NODE` or `NAMESPACE/POD`: its row among the nodes, identities, certificates, and as \
         its proxy tells them its newest 200 connections and what it uses; what was not told is in `incomplete`",
    ),
    (
        "/api/v1/certificates",
        "The roots, how far a rotation is, and what certificates the proxies hold, the 1,000 soonest to end, with what \
         was `left_out`, was told by a proxy that has no such workload (`unexpected`) or was not told (`incomplete`); \
         `?identity=SPIFFE`, `?node=NAME` or `NAMESPACE/POD` of a waypoint; never a key",
    ),
    (
        "/api/v1/policies",
        "Policies that apply to `?workload=NAMESPACE/NAME`: of the mesh, the namespace, its own, and of its waypoints",
    ),
    ("/api/v1/checks", "What is right and what is not, by category, each with a hint"),
    ("/api/v1/incidents", "Refusals beside changes of configuration, newest first"),
    ("/api/v1/selftests", "The last outcome of each test of each node"),
    (
        "/api/v1/edges",
        "Who talked to whom, how, and what was refused; `?window=5m`, at most 24h; `&by=side` with what each side told",
    ),
    (
        "/api/v1/seen",
        "Who talked to whom as flow records, each with the `connections` it stands for: the newest 20,000, and since \
         when proxies were heard, `until` when all of them were, what was `lost` (told by who may not tell of it \
         included), `forgotten` and `left_out`; `?since=24h`, at most that, \
         `&namespace=NAME` or `&workload=NAMESPACE/NAME` at either end, `&verdict=denied`",
    ),
    (
        "/api/v1/flows",
        "Flow records of every proxy that pass the filters of `ambit flows`: the newest 8 MiB, and what was `lost` and \
         `left_out`; `?last=N`, `?follow=1` as one JSON object a line; 503 to one reader too many",
    ),
    (
        "/api/v1/events",
        "Server-sent events: `edges` with what changed each second, `refusal` and `config` at once, `lost` with a count; \
         503 to one reader too many",
    ),
    ("/api/v1/explain", "As `/explain` of a proxy, on what is configured now"),
    (
        "/api/v1/policy/diff",
        "POST manifests as YAML: connections of the last day that would end otherwise, or `problems` of the manifests",
    ),
    (
        "/api/v1/policy/suggest",
        "The smallest policies that let in what was seen, as YAML; `?namespace=NAME`, `&denied=1` with what was refused",
    ),
];
