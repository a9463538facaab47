// Nodes and waypoints: a list, and the page of one with its connections, identities, certificates and what it uses.
import { useEffect, useState } from "preact/hooks";
import { bytes, endName, left, short, span } from "../format";
import { Gaps, Pill, Table, Trouble, View, useList } from "../parts";
import type { Connection, MeshNode, NodeDetail } from "../types";
import { Leaves } from "./leaves";

export function NodesView({ params }: { params: URLSearchParams }) {
  const name = params.get("name");
  return name ? <One key={name} name={name} /> : <All />;
}

const flag = (value: boolean | null | undefined, yes: string, no: string) =>
  value == null ? <>-</> : <Pill tone={value ? "good" : "bad"}>{value ? yes : no}</Pill>;

function All() {
  const { items, trouble, loading } = useList<MeshNode>("nodes", 2000);
  return (
    <View title="Nodes" cli="ambit status">
      <Trouble text={trouble} />
      {!loading && (
        <Table
          label="Nodes and waypoints"
          rows={items}
          id={(n) => `${n.kind} ${n.name}`}
          empty="No node is known."
          tone={(n) => (n.connected ? "" : "bad")}
          columns={[
            { head: "Name", cell: (n) => <a href={`#/nodes?name=${encodeURIComponent(n.name)}`}>{n.name}</a> },
            { head: "Kind", cell: (n) => n.kind },
            { head: "Connected", cell: (n) => flag(n.connected, "yes", "no") },
            { head: "Configuration", cell: (n) => flag(n.synced, "up to date", "behind") },
            { head: "Tells flows", cell: (n) => flag(n.attached, "yes", "no") },
            { head: "Workloads", cell: (n) => n.workloads ?? "-", number: true },
            { head: "Version", cell: (n) => n.version ?? "-" },
            { head: "Remark", cell: (n) => n.detail ?? "" },
          ]}
        />
      )}
    </View>
  );
}

function One({ name }: { name: string }) {
  const { items, trouble, loading } = useList<NodeDetail>("node", 5000, { name });
  const node = items[0];
  return (
    <View title={name} cli={node?.kind === "waypoint" ? "ambit waypoint status -A" : `ambit get connections --node ${name}`}>
      <p><a href="#/nodes">All nodes</a></p>
      <Trouble text={trouble} />
      {loading && <p class="empty">Its proxy is asked.</p>}
      {node && <Detail node={node} />}
    </View>
  );
}

function Detail({ node }: { node: NodeDetail }) {
  return (
    <>
      <Gaps answer={{ apiVersion: "", kind: "", items: [], incomplete: node.incomplete }} />
      <Costs node={node} />
      <h2>Identities</h2>
      <Gaps answer={{ apiVersion: "", kind: "", items: [], left_out: node.identities_left_out }} />
      <Table
        label="Identities"
        rows={node.identities}
        id={(one) => one.identity}
        empty="No workload runs here."
        columns={[
          { head: "Identity", cell: (one) => <span class="mono">{one.identity}</span> },
          { head: "Workloads", cell: (one) => one.workloads, number: true },
        ]}
      />
      <h2>Certificates</h2>
      <Gaps answer={{ apiVersion: "", kind: "", items: [], left_out: node.certificates_left_out, unexpected: node.certificates_unexpected }} />
      <Leaves rows={node.certificates} label="Certificates of the node" empty="Its proxy tells of none." />
      <h2>Connections</h2>
      <Connections node={node} />
    </>
  );
}

/** Part of a processor's time between the last two answers. */
function useProcessor(node: NodeDetail): number | null {
  const [seen, see] = useState<{ at: number; cpu: number; share: number | null }>({ at: 0, cpu: 0, share: null });
  const cpu = node.budget?.cpu_seconds;
  useEffect(() => {
    if (cpu == null || node.at_seconds === seen.at) return;
    const passed = node.at_seconds - seen.at;
    // A proxy that was started anew counts from nothing.
    const share = seen.at > 0 && passed > 0 && cpu >= seen.cpu ? (cpu - seen.cpu) / passed : null;
    see({ at: node.at_seconds, cpu, share });
  }, [node.at_seconds, cpu]);
  return seen.share;
}

function Costs({ node }: { node: NodeDetail }) {
  const share = useProcessor(node);
  const used = node.budget;
  if (!used) return node.kind === "waypoint" ? <p class="note">A waypoint tells what it uses in its metrics.</p> : null;
  const of = (part: number | undefined, whole: number | undefined) => (part == null ? "-" : whole == null ? short(part) : `${short(part)} of ${short(whole)}`);
  const cpu = used.cpu_seconds == null ? "-" : `${share == null ? "" : `${(share * 100).toFixed(1)} % of one now; `}${span(used.cpu_seconds)} since it started`;
  return (
    <dl class="facts wide">
      <dt>Memory</dt><dd>{bytes(used.resident_bytes)}</dd>
      <dt>Processor</dt><dd>{cpu}</dd>
      <dt>Connections</dt><dd>{of(used.connections_open, undefined)} open; a pod may have {of(used.pod_connections_max, undefined)}</dd>
      <dt>Descriptors</dt><dd>{of(used.descriptors_open, used.descriptors_max)}</dd>
      <dt>Flow records</dt><dd>{of(used.flow_records, used.flow_records_max)}, {of(used.flow_records_lost, undefined)} pushed out</dd>
    </dl>
  );
}

/** The newest ones; there may be many more. */
function Connections({ node }: { node: NodeDetail }) {
  if (!node.connections) return <p class="empty">{node.kind === "waypoint" ? "A waypoint lists none; the nodes of both ends do." : "Not told."}</p>;
  const open = node.budget?.connections_open;
  const port = (c: Connection) => /:(\d+)$/.exec(c.hbone_addr ?? c.dst.addr ?? "")?.[1] ?? "";
  return (
    <>
      <p class="note">The newest {node.connections.length}{open != null && ` of ${open}`}{node.connections_left_out ? `; ${node.connections_left_out} cannot be shown` : ""}.</p>
      <Table
        label="Connections"
        rows={node.connections}
        id={(c) => `${c.conn_id} ${c.direction} ${c.src.addr} ${c.dst.addr}`}
        empty="None is open."
        columns={[
          { head: "Direction", cell: (c) => c.direction },
          { head: "From", cell: (c) => endName(c.src) },
          { head: "To", cell: (c) => `${endName(c.dst)}:${port(c)}` },
          { head: "Path", cell: (c) => c.path },
          { head: "Open for", cell: (c) => left((c.age_ms ?? 0) / 1000 || 0.1), number: true },
          { head: "Sent", cell: (c) => bytes(c.bytes_sent), number: true },
          { head: "Received", cell: (c) => bytes(c.bytes_recv), number: true },
          { head: "Id", cell: (c) => <span class="mono">{c.conn_id?.slice(0, 12)}</span> },
        ]}
      />
    </>
  );
}
