// Which boxes and arrows the map shows: workloads as they are while there are few, namespaces as one box each when there
// are many, and in a large namespace the busiest by name with the rest as one.
import { type Safety, endName, safety } from "./format";
import type { Edge } from "./types";

/** From so many workloads on, namespaces begin collapsed. */
export const COLLAPSE_FROM = 60;
/** Workloads of an open namespace that have a box of their own. */
const OWN_BOX_MAX = 40;

export interface Box {
  id: string;
  namespace: string;
  label: string;
  kind: "workload" | "namespace" | "rest";
  /** Workloads it stands for. */
  count: number;
  denied: number;
}

export interface Arrow {
  id: string;
  from: string;
  to: string;
  edges: Edge[];
  perSecond: number;
  /** What `perSecond` counts. */
  unit: "requests" | "connections";
  denied: number;
  codes: Record<string, number>;
  safety: Safety;
  success: number | null;
  p95: number | null;
}

export interface Graph {
  boxes: Box[];
  arrows: Arrow[];
  workloads: number;
  /** Whether a namespace is open. */
  isOpen: (namespace: string) => boolean;
}

const OUTSIDE = "outside the mesh";

function place(end: Edge["source"]): { namespace: string; name: string } {
  const namespace = end.namespace || OUTSIDE;
  return { namespace, name: endName({ ...end, namespace: null }) };
}

interface Census {
  all: Map<string, Map<string, number>>;
  workloads: number;
}

/** Workloads by namespace, with how much each has to do. */
function census(edges: Edge[]): Census {
  const all = new Map<string, Map<string, number>>();
  let workloads = 0;
  for (const edge of edges) {
    for (const end of [edge.source, edge.destination]) {
      const { namespace, name } = place(end);
      const names = all.get(namespace) ?? new Map<string, number>();
      if (!names.has(name)) workloads += 1;
      // What is refused is always worth a box.
      names.set(name, (names.get(name) ?? 0) + edge.rate_per_s + (edge.denied > 0 ? 1e6 : 0));
      all.set(namespace, names);
    }
  }
  return { all, workloads };
}

function grouping({ all, workloads }: Census, chosen: ReadonlyMap<string, boolean>) {
  const isOpen = (namespace: string) => chosen.get(namespace) ?? workloads <= COLLAPSE_FROM;
  const own = new Map<string, Set<string>>();
  for (const [namespace, names] of all) {
    const sorted = [...names].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    own.set(namespace, new Set(sorted.slice(0, OWN_BOX_MAX).map(([name]) => name)));
  }
  const boxOf = (end: Edge["source"]): Box => {
    const { namespace, name } = place(end);
    const size = all.get(namespace)?.size ?? 1;
    if (!isOpen(namespace)) {
      return { id: `${namespace}/`, namespace, label: namespace, kind: "namespace", count: size, denied: 0 };
    }
    if (own.get(namespace)?.has(name)) {
      return { id: `${namespace}/${name}`, namespace, label: name, kind: "workload", count: 1, denied: 0 };
    }
    const count = size - OWN_BOX_MAX;
    return { id: `${namespace}/…`, namespace, label: `${count} more`, kind: "rest", count, denied: 0 };
  };
  return { isOpen, boxOf };
}

function merge(id: string, from: string, to: string, edges: Edge[]): Arrow {
  const total = (of: (edge: Edge) => number) => edges.reduce((sum, edge) => sum + of(edge), 0);
  const most = (of: (edge: Edge) => number | null | undefined) => {
    const known = edges.map(of).filter((value): value is number => value != null);
    return known.length ? Math.max(...known) : null;
  };
  const codes: Record<string, number> = {};
  for (const edge of edges) {
    for (const [code, count] of Object.entries(edge.codes)) codes[code] = (codes[code] ?? 0) + count;
  }
  const requests = total((edge) => edge.requests_per_s ?? 0);
  const weight = (edge: Edge) => edge.requests_per_s || edge.rate_per_s || 0;
  const known = edges.filter((edge) => edge.success != null);
  const weights = known.reduce((sum, edge) => sum + weight(edge), 0);
  const success = weights > 0 ? known.reduce((s, e) => s + (e.success ?? 0) * weight(e), 0) / weights : null;
  const kinds = new Set(edges.map(safety));
  const single = kinds.size === 1 ? [...kinds][0] : undefined;
  const secure = [...kinds].every((kind) => kind === "locked" || kind === "local");
  return {
    id,
    from,
    to,
    edges,
    perSecond: requests || total((edge) => edge.rate_per_s),
    unit: requests ? "requests" : "connections",
    denied: total((edge) => edge.denied),
    codes,
    safety: single ?? (secure ? "locked" : "mixed"),
    success,
    p95: most((edge) => edge.latency_ms_p95),
  };
}

/** The graph of edges; `chosen` says which namespaces somebody opened or closed by hand. */
export function graph(edges: Iterable<Edge>, chosen: ReadonlyMap<string, boolean>): Graph {
  const all = [...edges];
  const counted = census(all);
  const { isOpen, boxOf } = grouping(counted, chosen);
  const boxes = new Map<string, Box>();
  const bundles = new Map<string, { from: string; to: string; edges: Edge[] }>();
  for (const edge of all) {
    const [from, to] = [boxOf(edge.source), boxOf(edge.destination)];
    for (const box of [from, to]) if (!boxes.has(box.id)) boxes.set(box.id, box);
    const target = boxes.get(to.id);
    if (target) target.denied += edge.denied;
    // What stays inside a collapsed namespace is not drawn, but counted.
    if (from.id === to.id) continue;
    const id = `${from.id}>${to.id}`;
    const bundle = bundles.get(id) ?? { from: from.id, to: to.id, edges: [] };
    bundle.edges.push(edge);
    bundles.set(id, bundle);
  }
  const byId = <T extends { id: string }>(a: T, b: T) => (a.id < b.id ? -1 : 1);
  return {
    boxes: [...boxes.values()].sort(byId),
    arrows: [...bundles].map(([id, b]) => merge(id, b.from, b.to, b.edges)).sort(byId),
    workloads: counted.workloads,
    isOpen,
  };
}
