// Workloads: a list, and the page of one with neighbours, policies, certificate and recent refusals.
import { useState } from "preact/hooks";
import { ago, clock, endName, isMember, ms, portOf, rate, safety } from "../format";
import { useLive } from "../live";
import { Code, Gaps, Pill, SafetyIcon, Table, Trouble, View, useList } from "../parts";
import { Leaves } from "./leaves";
import type { Applied, Certificate, Edge, Flow, Workload } from "../types";

/** Rows that are drawn; the filter finds the rest. */
const ROWS_MAX = 300;
/** Refusals that are shown of one workload. */
const RECORDS_MAX = 50;

export function WorkloadsView({ params }: { params: URLSearchParams }) {
  const name = params.get("name");
  return name ? <One name={name} /> : <All />;
}

function All() {
  const { items, trouble, loading } = useList<Workload>("workloads");
  const [text, setText] = useState("");
  const found = items.filter((w) => `${w.namespace}/${w.name} ${w.node} ${w.addresses.join(" ")}`.includes(text.trim()));
  return (
    <View title="Workloads" cli="ambit get workloads">
      <div class="bar" role="search">
        <label>Find <input type="search" data-find value={text} onInput={(e) => setText(e.currentTarget.value)} placeholder="name, node or address" /></label>
        <span class="count">{found.length} of {items.length}{found.length > ROWS_MAX && `, the first ${ROWS_MAX} shown`}</span>
      </div>
      <Trouble text={trouble} />
      {!loading && (
        <Table
          label="Workloads"
          rows={found.slice(0, ROWS_MAX)}
          id={(w) => w.uid}
          empty="No workload fits."
          columns={[
            { head: "Namespace", cell: (w) => w.namespace },
            { head: "Name", cell: (w) => <a href={`#/workloads?name=${encodeURIComponent(`${w.namespace}/${w.name}`)}`}>{w.name}</a> },
            { head: "Node", cell: (w) => w.node || "-" },
            { head: "Addresses", cell: (w) => <span class="mono">{w.addresses.join(", ") || "-"}</span> },
            { head: "In the mesh", cell: (w) => <Pill tone={w.tunnel === "none" ? "plain" : "good"}>{w.tunnel}</Pill> },
            { head: "Ready", cell: (w) => <Pill tone={w.healthy ? "good" : "warn"}>{w.healthy ? "yes" : "no"}</Pill> },
            { head: "Waypoint", cell: (w) => w.waypoint ?? "-" },
            { head: "Policies", cell: (w) => w.policies.length || "-", number: true },
          ]}
        />
      )}
    </View>
  );
}

function One({ name }: { name: string }) {
  const { items, trouble, loading } = useList<Workload>("workloads");
  const live = useLive();
  const own = items.find((w) => `${w.namespace}/${w.name}` === name);
  const edges = [...live.edges.values()];
  const [namespace = "", workload = ""] = name.split("/");
  const self = { namespace, workload };
  return (
    <View title={name} cli={`ambit get workloads --workload-namespace ${name.split("/")[0]}`}>
      <p><a href="#/workloads">All workloads</a></p>
      <Trouble text={trouble} />
      {!loading && !trouble && !own && <p class="empty">istiod-lite knows no workload of this name now.</p>}
      {own && <Facts own={own} />}
      <h2>Called by</h2>
      <Neighbours edges={edges.filter((e) => isMember(self, e.destination))} end={(e) => endName(e.source)} />
      <h2>Calls</h2>
      <Neighbours edges={edges.filter((e) => isMember(self, e.source))} end={(e) => `${endName(e.destination)}:${e.port}`} />
      {own && <h2>Policies that apply</h2>}
      {own && <Policies name={name} />}
      <h2>Recent refusals</h2>
      <Refusals name={name} />
      <h2>Refused in the last day</h2>
      <RefusedPairs name={name} />
      {own && <OwnCertificate own={own} />}
    </View>
  );
}

function Facts({ own }: { own: Workload }) {
  return (
    <dl class="facts wide">
      <dt>Identity</dt><dd class="mono">{own.identity}</dd>
      <dt>Node</dt><dd>{own.node ? <a href={`#/nodes?name=${encodeURIComponent(own.node)}`}>{own.node}</a> : "-"}</dd>
      <dt>Addresses</dt><dd class="mono">{own.addresses.join(", ") || "-"}</dd>
      <dt>In the mesh</dt><dd>{own.tunnel}</dd>
      <dt>Ready</dt><dd>{own.healthy ? "yes" : "no"}</dd>
      <dt>Waypoint</dt><dd>{own.waypoint ?? "none"}</dd>
      <dt>Services</dt><dd>{Object.entries(own.services).map(([service, ports]) => `${service} (${ports.join(", ")})`).join("; ") || "none"}</dd>
      <dt>Probe ports</dt><dd>{own.probe_ports?.join(", ") || "none"}</dd>
    </dl>
  );
}

function Neighbours({ edges, end }: { edges: Edge[]; end: (edge: Edge) => string }) {
  return (
    <Table
      label="Neighbours"
      rows={edges}
      id={(e) => e.id}
      empty="Nobody in the last five minutes."
      tone={(e) => (e.denied > 0 ? "bad" : "")}
      columns={[
        { head: "Who", cell: end },
        { head: "Carried", cell: (e) => <SafetyIcon kind={safety(e)} /> },
        { head: "Connections", cell: (e) => rate(e.rate_per_s), number: true },
        { head: "p95", cell: (e) => ms(e.latency_ms_p95), number: true },
        { head: "Refused", cell: (e) => e.denied || "-", number: true },
        { head: "Codes", cell: (e) => Object.keys(e.codes).map((code) => <Code key={code} code={code} />) },
      ]}
    />
  );
}

/** Refusals as the proxies recorded them, and those that came since. */
function Refusals({ name }: { name: string }) {
  const query = { verdict: "denied", pod: name, last: String(RECORDS_MAX) };
  const { answer, items, trouble, loading } = useList<Flow>("flows", 10000, query);
  const live = useLive();
  const fresh = live.refusals.filter((flow) => endName(flow.src) === name || endName(flow.dst) === name);
  const key = (f: Flow) => `${f.conn_id}${f.node}${f.time}`;
  const all = new Map([...fresh, ...items].map((flow) => [key(flow), flow]));
  const rows = [...all.values()].sort((one, other) => other.time.localeCompare(one.time)).slice(0, RECORDS_MAX);
  return (
    <>
      <Trouble text={trouble} />
      {!loading && <Gaps answer={answer} />}
      {!loading && <RefusalTable label="Recent refusals" rows={rows} id={key} empty={`None is recorded${answer?.oldest ? ` since ${clock(answer.oldest)}` : ""}.`} />}
    </>
  );
}

/** What of it is remembered for a day, when the records are gone. */
function RefusedPairs({ name }: { name: string }) {
  const { answer, items, trouble, loading } = useList<Flow>("seen", 30000, { since: "24h", verdict: "denied", workload: name });
  return (
    <>
      <Trouble text={trouble} />
      {!loading && <Gaps answer={answer} />}
      {!loading && (
        <RefusalTable
          label="Refused in the last day"
          rows={items.slice(0, RECORDS_MAX)}
          id={(f) => `${f.time} ${endName(f.src)} ${f.src.addr} ${f.direction} ${endName(f.dst)} ${f.hbone_addr} ${f.path} ${f.code} ${f.policy}`}
          empty="No pair was refused."
          counted
        />
      )}
    </>
  );
}

interface RefusalProps {
  label: string;
  rows: Flow[];
  id: (flow: Flow) => string;
  empty: string;
  /** Each row stands for many. */
  counted?: boolean;
}

function RefusalTable({ label, rows, id, empty, counted }: RefusalProps) {
  const count = { head: "How often", cell: (f: Flow) => f.connections ?? 1, number: true };
  return (
    <Table
      label={label}
      rows={rows}
      id={id}
      empty={empty}
      columns={[
        { head: counted ? "Last" : "Time", cell: (f) => <span title={f.time}>{counted ? ago(f.time) : clock(f.time)}</span> },
        { head: "From", cell: (f) => endName(f.src) },
        { head: "To", cell: (f) => `${endName(f.dst)}:${portOf(f)}` },
        { head: "Code", cell: (f) => <Code code={f.code} /> },
        { head: "Decided by", cell: (f) => f.policy ?? "-" },
        ...(counted ? [count] : []),
      ]}
    />
  );
}

const WIDTHS: Record<string, string> = {
  mesh: "the whole mesh",
  namespace: "its namespace",
  workload: "itself",
  waypoint: "all that goes through the waypoint",
  service: "services",
};

/** Policies that apply, wherever they are enforced. */
function Policies({ name }: { name: string }) {
  const { items, trouble, loading } = useList<Applied>("policies", 10000, { workload: name });
  const about = (p: Applied) => (p.services?.length ? `${WIDTHS[p.from]} ${p.services.join(", ")}` : (WIDTHS[p.from] ?? p.from));
  return (
    <>
      <Trouble text={trouble} />
      {!loading && (
        <Table
          label="Policies that apply"
          rows={items}
          id={(p) => `${p.at} ${p.name}`}
          empty="No policy applies: nobody is refused by one."
          columns={[
            { head: "Policy", cell: (p) => p.name },
            { head: "Written for", cell: about },
            { head: "Action", cell: (p) => (p.action ? `${p.action}${p.dry_run ? " (dry run)" : ""}` : <Pill tone="bad">cannot be read: nothing is let in</Pill>) },
            { head: "Rules", cell: (p) => p.rules ?? "-", number: true },
            { head: "Enforced by", cell: (p) => p.at },
          ]}
        />
      )}
    </>
  );
}

function OwnCertificate({ own }: { own: Workload }) {
  // The one that its node holds; a waypoint's replica holds its own, under its own name.
  const { answer, items, trouble, loading } = useList<Certificate>("certificates", 10000, { identity: own.identity });
  const rows = items.filter((c) => c.node === own.node || c.node === `${own.namespace}/${own.name}`);
  return (
    <>
      <h2>Certificate</h2>
      <Trouble text={trouble} />
      {!loading && <Gaps answer={rows.length === 0 ? answer : null} />}
      {!loading && <Leaves rows={rows} label="Certificate of the workload" empty={own.tunnel === "none" ? "It is not in the mesh, and has none." : "No proxy tells of one."} />}
    </>
  );
}
