// What changes by itself: edges, refusals, configuration. One stream for all views, opened anew when it breaks.
import { useEffect, useState } from "preact/hooks";
import { Refused, events, get } from "./api";
import { endName, isMember, portOf } from "./format";
import type { Edge, Flow } from "./types";

/** Refusals that are kept for the page; the nodes remember more. */
const REFUSALS_MAX = 200;
const AGAIN_MS = [500, 1000, 2000, 5000];
const WINDOW = "5m";

export interface State {
  edges: Map<string, Edge>;
  refusals: Flow[];
  revision: number | null;
  connected: boolean;
  /** Why there is nothing, for people. */
  trouble: string | null;
  loaded: boolean;
}

let state: State = { edges: new Map(), refusals: [], revision: null, connected: false, trouble: null, loaded: false };
const listeners = new Set<() => void>();

function change(part: Partial<State>): void {
  state = { ...state, ...part };
  listeners.forEach((tell) => tell());
}

function takeEdges(data: { items?: Edge[]; removed?: string[]; whole?: boolean }): void {
  const edges = data.whole ? new Map<string, Edge>() : new Map(state.edges);
  for (const id of data.removed ?? []) edges.delete(id);
  const told = data.items ?? [];
  for (const [id, edge] of edges) if (id.startsWith(FRESH) && told.some((one) => isOf(edge, one))) edges.delete(id);
  for (const edge of data.items ?? []) edges.set(edge.id, edge);
  change({ edges, loaded: true });
}

const pair = (edge: Ends): string =>
  `${endName(edge.source)}>${endName(edge.destination)}:${edge.port}`;

type Ends = Pick<Edge, "source" | "destination" | "port">;

/** Whether a refusal was one of an edge's. */
const isOf = (refusal: Ends, edge: Ends): boolean =>
  refusal.port === edge.port && isMember(refusal.source, edge.source) && isMember(refusal.destination, edge.destination);

/** Begins the id of an edge that only a refusal told of so far. */
const FRESH = "refusal ";

/** Shows a refusal on its edge before the next counts come; those replace what is added here. */
function takeRefusal(flow: Flow): void {
  const refusals = [flow, ...state.refusals].slice(0, REFUSALS_MAX);
  // Both ends may tell of one connection.
  if (state.refusals.some((known) => known.conn_id === flow.conn_id)) return change({ refusals });
  const ends = { source: flow.src, destination: flow.dst, port: Number(portOf(flow)) };
  const known = [...state.edges.values()].find((edge) => isOf(ends, edge));
  const edge: Edge = known ?? {
    ...ends, id: FRESH + pair(ends), paths: [flow.path], secured: false, connections: 0, rate_per_s: 0,
    bytes_sent_per_s: 0, bytes_received_per_s: 0, denied: 0, codes: {}, policies: [],
  };
  const code = flow.code ?? "refused";
  const codes = { ...edge.codes, [code]: (edge.codes[code] ?? 0) + 1 };
  const policies = flow.policy ? [...new Set([...edge.policies, flow.policy])] : edge.policies;
  const [denied, connections] = [edge.denied + 1, edge.connections + 1];
  const edges = new Map(state.edges).set(edge.id, { ...edge, codes, policies, denied, connections, last_seen: flow.time });
  change({ edges, refusals });
}

function take(name: string, data: unknown): void {
  if (name === "edges") takeEdges(data as { items?: Edge[]; removed?: string[] });
  else if (name === "refusal") takeRefusal(data as Flow);
  else if (name === "config") change({ revision: (data as { revision?: number }).revision ?? state.revision });
}

async function once(signal: AbortSignal): Promise<void> {
  const whole = await get<Edge>("edges", { window: WINDOW }, signal);
  takeEdges({ items: whole.items, whole: true });
  change({ connected: true, trouble: null });
  await events(signal, take);
}

/** Follows until the page goes away. */
export async function follow(signal: AbortSignal): Promise<void> {
  for (let failed = 0; !signal.aborted; failed += 1) {
    try {
      await once(signal);
      failed = 0;
    } catch (cause) {
      if (signal.aborted) return;
      const trouble = cause instanceof Refused ? cause.message : "istiod-lite does not answer; trying again";
      change({ connected: false, trouble, loaded: true });
      if (cause instanceof Refused && cause.status === 401) return;
    }
    change({ connected: false });
    await new Promise((done) => setTimeout(done, AGAIN_MS[Math.min(failed, AGAIN_MS.length - 1)]));
  }
}

export function useLive(): State {
  const [seen, set] = useState(state);
  useEffect(() => {
    const tell = () => set(state);
    listeners.add(tell);
    tell();
    return () => void listeners.delete(tell);
  }, []);
  return seen;
}
