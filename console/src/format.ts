// Numbers and names as people read them.
import type { Edge, End, Flow } from "./types";

export function rate(value: number | null | undefined): string {
  if (value == null) return "-";
  if (value === 0) return "0/s";
  return value < 10 ? `${value.toFixed(1)}/s` : `${short(value)}/s`;
}

export function short(value: number): string {
  if (value < 1000) return String(Math.round(value));
  if (value < 1e6) return `${(value / 1e3).toFixed(1)}k`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)}M` : `${(value / 1e9).toFixed(1)}G`;
}

export const bytes = (value: number | null | undefined): string => (value == null ? "-" : `${short(value)}B`);

export function ms(value: number | null | undefined): string {
  if (value == null) return "-";
  if (value < 10) return `${value.toFixed(1)} ms`;
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`;
}

export const percent = (value: number | null | undefined): string =>
  value == null ? "-" : `${value === 1 ? "100" : (Math.floor(value * 10000) / 100).toFixed(2)} %`;

export function clock(time: string | null | undefined): string {
  if (!time) return "-";
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? time : at.toISOString().slice(11, 23);
}

export function ago(time: string | null | undefined): string {
  if (!time) return "-";
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (Number.isNaN(seconds)) return time;
  return `${span(Math.abs(seconds))} ${seconds < 0 ? "from now" : "ago"}`;
}

/** How long a certificate is good for; none is not good at all. */
export const left = (seconds: number | null | undefined): string =>
  seconds == null ? "-" : seconds === 0 ? "over" : span(seconds);

export function span(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

/** `namespace/name`, or an address. */
export function endName(end: End): string {
  const name = end.workload ?? end.controller ?? end.service;
  if (name) return end.namespace ? `${end.namespace}/${name}` : name;
  return (end.addr ?? "unknown").replace(/:\d+$/, "");
}

/** Whether a record's end is of an edge's: edges name a pod's controller, records the pod. */
export function isMember(record: End, of: End): boolean {
  const [pod, whole] = [endName(record), endName(of)];
  return pod === whole || (pod.startsWith(`${whole}-`) && (record.namespace ?? null) === (of.namespace ?? null));
}

export function portOf(flow: Flow): string {
  return /:(\d+)$/.exec(flow.hbone_addr ?? flow.dst.addr ?? "")?.[1] ?? "";
}

export type Safety = "locked" | "local" | "mixed" | "open" | "refused";

/** What is known of how an edge is carried; nothing is claimed that did not happen. */
export function safety(edge: Pick<Edge, "paths" | "secured" | "denied" | "connections" | "why_not">): Safety {
  const plain = edge.paths.filter((path) => path === "plaintext" || path === "passthrough").length;
  if (edge.denied > 0 && edge.connections <= edge.denied) return "refused";
  if (edge.secured) return edge.paths.length > 0 && edge.paths.every((path) => path === "local") ? "local" : "locked";
  return plain > 0 && plain < edge.paths.length ? "mixed" : "open";
}

export const SAFETY_WORDS: Record<Safety, string> = {
  locked: "mutual TLS between nodes",
  local: "same node, direct; identity known, no TLS",
  mixed: "partly plaintext",
  open: "plaintext",
  refused: "every attempt was refused",
};
