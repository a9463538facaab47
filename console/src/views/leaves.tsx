// Certificates of workloads, as proxies hold them.
import { ago, left } from "../format";
import { Pill, Table } from "../parts";
import type { Certificate } from "../types";

/** Less than this is left of what should have been renewed long before. */
const SOON_SECONDS = 3600;

function tone(c: Certificate): "good" | "warn" | "bad" {
  if (c.state === "expired" || c.state === "missing") return "bad";
  const isSoon = (c.seconds_left ?? 0) < Math.min(SOON_SECONDS, life(c) / 4);
  return c.state !== "valid" || isSoon ? "warn" : "good";
}

/** How long it was made for, in seconds. */
function life(c: Certificate): number {
  const whole = (Date.parse(c.not_after ?? "") - Date.parse(c.not_before ?? "")) / 1000;
  return Number.isFinite(whole) ? whole : SOON_SECONDS * 4;
}

export function Leaves({ rows, label, empty }: { rows: Certificate[]; label: string; empty: string }) {
  return (
    <Table
      label={label}
      rows={rows}
      id={(c) => `${c.name} ${c.node}`}
      empty={empty}
      tone={(c) => (tone(c) === "bad" ? "bad" : "")}
      columns={[
        { head: "Identity", cell: (c) => <span class="mono">{c.name}</span> },
        { head: "Held by", cell: (c) => c.node ?? "-" },
        { head: "State", cell: (c) => <Pill tone={tone(c)}>{c.state}</Pill> },
        { head: "Time left", cell: (c) => <span title={c.not_after ?? ""}>{left(c.seconds_left)}</span>, number: true },
        { head: "Issued", cell: (c) => <span title={c.not_before ?? ""}>{ago(c.not_before)}</span> },
        { head: "Serial", cell: (c) => <span class="mono">{c.serial ?? "-"}</span> },
        { head: "Last failure", cell: (c) => c.problem ?? "" },
      ]}
    />
  );
}
