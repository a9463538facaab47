// What istiod-lite answers, as far as it is shown. Fields that an older or newer one leaves out are optional.

export interface Envelope<T> {
  apiVersion: string;
  kind: string;
  items: T[];
  /** Flows: the oldest record that is still kept, and how many were lost. */
  oldest?: string | null;
  lost?: number;
  /** What keeps the answer from being whole. */
  incomplete?: string[];
  /** How many there was no room for. */
  left_out?: number;
  /** Certificates: how many were told by a proxy that has no such workload. */
  unexpected?: number;
}

export interface End {
  namespace?: string | null;
  workload?: string | null;
  /** Pairs only: the controller of the pods that they are of. */
  controller?: string | null;
  service?: string | null;
  identity?: string | null;
  node?: string | null;
  addr?: string | null;
}

export interface Edge {
  id: string;
  source: End;
  destination: End;
  port: number;
  paths: string[];
  secured: boolean;
  why_not?: string | null;
  connections: number;
  rate_per_s: number;
  requests_per_s?: number | null;
  success?: number | null;
  latency_ms_p50?: number | null;
  latency_ms_p95?: number | null;
  latency_ms_p99?: number | null;
  bytes_sent_per_s: number;
  bytes_received_per_s: number;
  denied: number;
  codes: Record<string, number>;
  policies: string[];
  last_seen?: string | null;
}

export interface Flow {
  time: string;
  node: string;
  conn_id: string;
  direction?: string;
  path: string;
  verdict: string;
  code?: string | null;
  reason?: string | null;
  policy?: string | null;
  nearest?: string | null;
  src: End;
  dst: End;
  service?: string | null;
  hbone_addr?: string | null;
  bytes_sent?: number;
  bytes_recv?: number;
  duration_ms?: number;
  error?: string | null;
  /** How many it stands for, if it is a pair and no record. */
  connections?: number;
  http?: { method?: string; path?: string; status?: number } | null;
}

export interface Workload {
  uid: string;
  namespace: string;
  name: string;
  node: string;
  identity: string;
  addresses: string[];
  tunnel: string;
  healthy: boolean;
  waypoint?: string | null;
  policies: string[];
  services: Record<string, string[]>;
  probe_ports?: number[];
}

/** A policy that applies to a workload. */
export interface Applied {
  name: string;
  /** `ztunnel`, or `waypoint NAMESPACE/NAME`. */
  at: string;
  /** How wide it is: `mesh`, `namespace`, `workload`, `waypoint` or `service`. */
  from: string;
  /** None if it cannot be read, and then nothing is let in where it applies. */
  action?: string | null;
  rules?: number | null;
  dry_run?: boolean | null;
  services?: string[];
}

export interface MeshNode {
  name: string;
  kind: "node" | "waypoint";
  connected: boolean;
  synced: boolean;
  attached?: boolean | null;
  version?: string | null;
  workloads?: number | null;
  detail?: string | null;
}

/** A connection that is open, as its node tells it. */
export interface Connection {
  conn_id: string;
  direction: string;
  path: string;
  src: End;
  dst: End;
  service?: string | null;
  hbone_addr?: string | null;
  bytes_sent?: number;
  bytes_recv?: number;
  age_ms?: number;
}

/** One node or waypoint. What its proxy did not tell is null. */
export interface NodeDetail extends MeshNode {
  identities: { identity: string; workloads: number }[];
  identities_left_out: number;
  certificates: Certificate[];
  certificates_left_out: number;
  certificates_unexpected: number;
  connections: Connection[] | null;
  connections_left_out: number | null;
  budget: Partial<Record<Used, number>> | null;
  incomplete: string[];
  at_seconds: number;
}

export type Used =
  | "resident_bytes"
  | "cpu_seconds"
  | "descriptors_open"
  | "descriptors_max"
  | "connections_open"
  | "pod_connections_max"
  | "flow_records"
  | "flow_records_max"
  | "flow_records_lost";

export interface Certificate {
  name: string;
  kind: string;
  state: string;
  serial?: string | null;
  not_before?: string | null;
  not_after?: string | null;
  seconds_left?: number | null;
  /** The node, or `namespace/pod` of a waypoint, that holds it. */
  node?: string | null;
  problem?: string | null;
}

export interface Step {
  step: string;
  state: string;
  evidence: string;
}

export interface Incident {
  at: string;
  kind: string;
  text: string;
  code?: string | null;
  count?: number | null;
  object?: string | null;
  revision?: number | null;
  suspect?: string | null;
}

export interface SelfTest {
  node: string;
  test: string;
  passed: boolean | null;
  result?: string | null;
  at?: string | null;
  detail?: string | null;
}

export interface Check {
  category: string;
  description: string;
  result: "success" | "warning" | "error";
  error?: string | null;
  hint?: string | null;
}
