// What is known of the box or arrow that somebody chose on the map.
import { useEffect, useRef } from "preact/hooks";
import { ago, bytes, endName, ms, percent, rate, safety } from "../format";
import type { Arrow, Box, Graph } from "../graph";
import { Cli, Code, SafetyIcon } from "../parts";
import type { Edge } from "../types";
import type { Chosen } from "./map";

/** Edges of a bundle that are listed; the table of the map has them all. */
const EDGES_MAX = 12;

interface Props {
  chosen: NonNullable<Chosen>;
  graph: Graph;
  close: () => void;
  toggle: (namespace: string) => void;
}

export function Panel({ chosen, graph, close, toggle }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), [chosen.id]);
  const box = graph.boxes.find((b) => b.id === chosen.id);
  const arrow = graph.arrows.find((a) => a.id === chosen.id);
  if (!box && !arrow) return null;
  return (
    <aside class="panel" aria-label="Details" onKeyDown={(e) => e.key === "Escape" && close()}>
      <button type="button" class="quiet close" onClick={close} aria-label="Close details">✕</button>
      <h2 tabIndex={-1} ref={heading}>{box ? `${box.namespace}/${box.label}` : arrow && `${arrow.from} → ${arrow.to}`}</h2>
      {arrow && <ArrowFacts arrow={arrow} />}
      {box && <BoxFacts box={box} graph={graph} toggle={toggle} />}
    </aside>
  );
}

function ArrowFacts({ arrow }: { arrow: Arrow }) {
  return (
    <>
      {arrow.edges.slice(0, EDGES_MAX).map((edge) => <EdgeFacts key={edge.id} edge={edge} />)}
      {arrow.edges.length > EDGES_MAX && <p class="note">and {arrow.edges.length - EDGES_MAX} more; “As a table” lists them</p>}
    </>
  );
}

function EdgeFacts({ edge }: { edge: Edge }) {
  const [from, to] = [endName(edge.source), `${edge.destination.namespace}/${edge.destination.service ?? edge.destination.workload ?? ""}`];
  return (
    <div class="facts-block">
      <h3>{from} → {endName(edge.destination)}:{edge.port}</h3>
      <dl class="facts">
        <dt>Carried</dt><dd><SafetyIcon kind={safety(edge)} /> ({edge.paths.join(", ") || "-"})</dd>
        {edge.why_not && <><dt>Why not TLS</dt><dd>{edge.why_not}</dd></>}
        <dt>Client</dt><dd class="mono">{edge.source.identity ?? "no identity"}</dd>
        <dt>Server</dt><dd class="mono">{edge.destination.identity ?? "no identity"}</dd>
        <dt>Connections</dt><dd>{rate(edge.rate_per_s)} ({edge.connections} in 5 min)</dd>
        <dt>Requests</dt><dd>{rate(edge.requests_per_s)}, success {percent(edge.success)}</dd>
        <dt>Latency</dt><dd>p50 {ms(edge.latency_ms_p50)}, p95 {ms(edge.latency_ms_p95)}, p99 {ms(edge.latency_ms_p99)}</dd>
        <dt>Bytes</dt><dd>{bytes(edge.bytes_sent_per_s)}/s sent, {bytes(edge.bytes_received_per_s)}/s received</dd>
        <dt>Last seen</dt><dd>{ago(edge.last_seen)}</dd>
        {edge.denied > 0 && <><dt>Refused</dt><dd class="bad-text">{edge.denied} in 5 min {Object.entries(edge.codes).map(([code, count]) => <span key={code}><Code code={code} /> × {count} </span>)}</dd></>}
        {edge.policies.length > 0 && <><dt>Policies</dt><dd>{edge.policies.join(", ")}</dd></>}
      </dl>
      <p><a href={`#/explain?from=${encodeURIComponent(from)}&to=${encodeURIComponent(`${to}:${edge.port}`)}`}>Explain this</a>{edge.denied > 0 && <> · <a href={`#/policy?namespace=${encodeURIComponent(edge.destination.namespace ?? "")}`}>Suggest a policy</a></>}</p>
      <Cli command={edge.denied > 0 ? `ambit why ${Object.keys(edge.codes)[0] ?? "last"}` : `ambit explain ${from} ${to}:${edge.port}`} />
    </div>
  );
}

function BoxFacts({ box, graph, toggle }: { box: Box; graph: Graph; toggle: (namespace: string) => void }) {
  const [out, into] = [graph.arrows.filter((a) => a.from === box.id), graph.arrows.filter((a) => a.to === box.id)];
  const name = `${box.namespace}/${box.label}`;
  return (
    <>
      {box.kind !== "workload" && (
        <p><button type="button" onClick={() => toggle(box.namespace)}>{graph.isOpen(box.namespace) ? "Collapse" : "Open"} namespace {box.namespace} ({box.count} workloads)</button></p>
      )}
      <Neighbours title="Called by" arrows={into} name={(a) => a.from} />
      <Neighbours title="Calls" arrows={out} name={(a) => a.to} />
      {box.kind === "workload" && <p><a href={`#/workloads?name=${encodeURIComponent(name)}`}>The workload’s own page</a></p>}
      <Cli command={box.kind === "workload" ? `ambit edges -n ${box.namespace}` : `ambit stat -n ${box.namespace}`} />
    </>
  );
}

function Neighbours({ title, arrows, name }: { title: string; arrows: Arrow[]; name: (arrow: Arrow) => string }) {
  return (
    <>
      <h3>{title}</h3>
      {arrows.length === 0 && <p class="note">nobody in the last 5 min</p>}
      <ul class="plain">
        {arrows.map((a) => (
          <li key={a.id}>{name(a)} · {rate(a.perSecond)} · p95 {ms(a.p95)}{a.denied > 0 && <span class="bad-text"> · {a.denied} refused</span>}</li>
        ))}
      </ul>
    </>
  );
}
