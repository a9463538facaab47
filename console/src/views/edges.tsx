// Edges as rows: what the map shows, for those who read rather than look.
import { ago, bytes, endName, ms, percent, rate, safety } from "../format";
import { Code, SafetyIcon, Table } from "../parts";
import type { Edge } from "../types";

/** Rows that are drawn; filters find the rest. */
const ROWS_MAX = 500;

export function EdgeTable({ edges }: { edges: Edge[] }) {
  const sorted = [...edges].sort((a, b) => b.denied - a.denied || b.rate_per_s - a.rate_per_s);
  return (
    <div class="grow">
      {edges.length > ROWS_MAX && <p class="note">The first {ROWS_MAX} of {edges.length}; filter for the rest.</p>}
      <Table
        label="Edges"
        rows={sorted.slice(0, ROWS_MAX)}
        id={(edge) => edge.id}
        empty="No edges."
        tone={(edge) => (edge.denied > 0 ? "bad" : "")}
        columns={[
          { head: "Source", cell: (e) => endName(e.source) },
          { head: "Destination", cell: (e) => `${endName(e.destination)}:${e.port}` },
          { head: "Carried", cell: (e) => <SafetyIcon kind={safety(e)} /> },
          { head: "Connections", cell: (e) => rate(e.rate_per_s), number: true },
          { head: "Requests", cell: (e) => rate(e.requests_per_s), number: true },
          { head: "Success", cell: (e) => percent(e.success), number: true },
          { head: "p50", cell: (e) => ms(e.latency_ms_p50), number: true },
          { head: "p95", cell: (e) => ms(e.latency_ms_p95), number: true },
          { head: "p99", cell: (e) => ms(e.latency_ms_p99), number: true },
          { head: "Sent", cell: (e) => `${bytes(e.bytes_sent_per_s)}/s`, number: true },
          { head: "Refused", cell: (e) => e.denied || "-", number: true },
          { head: "Codes", cell: (e) => Object.keys(e.codes).map((code) => <Code key={code} code={code} />) },
          { head: "Last seen", cell: (e) => ago(e.last_seen) },
        ]}
      />
    </div>
  );
}
