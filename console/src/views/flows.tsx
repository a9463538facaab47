// Flow records: the newest, and on demand as they come; filters are those of `ambit flows`, applied at the source.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Query, get, records } from "../api";
import { bytes, clock, endName, ms, portOf } from "../format";
import { Code, Pill, Trouble, View } from "../parts";
import type { Flow } from "../types";

/** Records of this page; the nodes keep theirs. */
const KEPT_MAX = 5000;
const ROW = 30;
const FILTERS = [
  { key: "namespace", flag: "-n", label: "Namespace" },
  { key: "from-pod", flag: "--from-pod", label: "From pod" },
  { key: "to-pod", flag: "--to-pod", label: "To pod" },
  { key: "verdict", flag: "--verdict", label: "Verdict" },
  { key: "code", flag: "--code", label: "Code" },
] as const;

type Filters = Partial<Record<(typeof FILTERS)[number]["key"], string>>;

function command(filters: Filters, follow: boolean): string {
  const flags = FILTERS.filter(({ key }) => filters[key]).map(({ key, flag }) => ` ${flag} ${filters[key]}`);
  return `ambit flows${follow ? " -f" : ""}${flags.join("")}`;
}

function useFlows(filters: Filters, following: boolean) {
  const [found, set] = useState<{ rows: Flow[]; memory: string }>({ rows: [], memory: "" });
  const [trouble, fail] = useState<string | null>(null);
  const key = JSON.stringify(filters);
  useEffect(() => {
    const stop = new AbortController();
    const query: Query = { ...filters, last: 1000 };
    const failed = (cause: Error) => stop.signal.aborted || fail(cause.message);
    const waiting: Flow[] = [];
    // Records come faster than pages are drawn.
    const timer = setInterval(() => {
      if (waiting.length === 0) return;
      const fresh = waiting.splice(0).reverse();
      set(({ rows, memory }) => ({ rows: [...fresh, ...rows].slice(0, KEPT_MAX), memory }));
    }, 250);
    const take = (record: Flow & { footer?: unknown }) => {
      if (!record.footer) waiting.push(record);
      if (waiting.length > KEPT_MAX) waiting.shift();
    };
    get<Flow>("flows", query, stop.signal).then((answer) => {
      const oldest = answer.oldest ? `oldest record ${clock(answer.oldest)}, ` : "";
      set({ rows: [...answer.items].reverse(), memory: `${oldest}${answer.lost ?? 0} lost` });
      fail(null);
      if (following) records("flows", { ...filters, follow: 1, last: 0 }, stop.signal, take).catch(failed);
    }, failed);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, [key, following]);
  return { ...found, trouble };
}

export function FlowsView({ params }: { params: URLSearchParams }) {
  const start = Object.fromEntries(FILTERS.map(({ key }) => [key, params.get(key) ?? ""])) as Filters;
  const [filters, setFilters] = useState<Filters>(start);
  const [following, setFollowing] = useState(true);
  const [chosen, choose] = useState<Flow | null>(null);
  const { rows, memory, trouble } = useFlows(filters, following);
  const change = (event: Event) => {
    const data = new FormData((event.currentTarget as HTMLElement).closest("form") ?? undefined);
    setFilters(Object.fromEntries(FILTERS.map(({ key }) => [key, String(data.get(key) ?? "").trim()])) as Filters);
  };
  return (
    <View title="Flows" cli={command(filters, following)}>
      <form class="bar" role="search" onSubmit={(e) => e.preventDefault()}>
        {FILTERS.map(({ key, label }) =>
          key === "verdict" ? (
            <label key={key}>{label} <select name={key} value={filters.verdict} onChange={change}><option value="">any</option><option>allowed</option><option>denied</option></select></label>
          ) : (
            <label key={key}>{label} <input name={key} value={filters[key]} size={12} onChange={change} data-find={key === "namespace" ? true : undefined} /></label>
          ),
        )}
        <label class="check"><input type="checkbox" checked={following} onChange={(e) => setFollowing(e.currentTarget.checked)} /> Follow</label>
        <span class="count">{rows.length} records; {memory}</span>
      </form>
      <Trouble text={trouble} />
      <div class="map-body">
        <Rows rows={rows} choose={choose} />
        {chosen && <Why flow={chosen} close={() => choose(null)} />}
      </div>
    </View>
  );
}

/** Only the rows that are seen are drawn. */
function Rows({ rows, choose }: { rows: Flow[]; choose: (flow: Flow) => void }) {
  const body = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const first = Math.max(0, Math.floor(top / ROW) - 5);
  const shown = useMemo(() => rows.slice(first, first + 60), [rows, first]);
  if (rows.length === 0) return <p class="empty grow">No record fits.</p>;
  const heads = ["Time", "Node", "Source", "Destination", "Path", "Verdict", "Code", "Summary", "Why"];
  return (
    <div class="scroll grow" ref={body} role="region" aria-label="Flow records" tabIndex={0} onScroll={(e) => setTop(e.currentTarget.scrollTop)}>
      <table class="flows" aria-rowcount={rows.length + 1}>
        <thead><tr>{heads.map((head) => <th key={head} scope="col">{head}</th>)}</tr></thead>
        <tbody>
          {first > 0 && <tr aria-hidden="true" style={{ height: `${first * ROW}px` }}><td colSpan={heads.length} /></tr>}
          {shown.map((flow, at) => <Row key={`${flow.conn_id}${flow.node}${flow.direction}${flow.path}${flow.time}`} flow={flow} at={first + at} choose={choose} />)}
          {first + 60 < rows.length && <tr aria-hidden="true" style={{ height: `${(rows.length - first - 60) * ROW}px` }}><td colSpan={heads.length} /></tr>}
        </tbody>
      </table>
    </div>
  );
}

function summary(flow: Flow): string {
  if (flow.error) return flow.error;
  if (flow.http?.method) return `${flow.http.method} ${flow.http.path ?? ""} ${flow.http.status ?? ""}`;
  return `${flow.direction ?? ""} ${bytes(flow.bytes_sent)} sent, ${bytes(flow.bytes_recv)} received, ${ms(flow.duration_ms)}`;
}

function Row({ flow, at, choose }: { flow: Flow; at: number; choose: (flow: Flow) => void }) {
  const isDenied = flow.verdict === "denied";
  return (
    <tr class={isDenied ? "bad" : ""} aria-rowindex={at + 2}>
      <td class="mono">{clock(flow.time)}</td>
      <td>{flow.node}</td>
      <td>{endName(flow.src)}</td>
      <td>{endName(flow.dst)}:{portOf(flow)}</td>
      <td>{flow.path}</td>
      <td><Pill tone={isDenied ? "bad" : "good"}>{flow.verdict}</Pill></td>
      <td><Code code={flow.code} /></td>
      <td class="long">{summary(flow)}</td>
      <td><button type="button" class="quiet" onClick={() => choose(flow)} aria-label={`Why ${flow.conn_id.slice(0, 8)}`}>why</button></td>
    </tr>
  );
}

function Why({ flow, close }: { flow: Flow; close: () => void }) {
  const [from, to] = [endName(flow.src), `${endName(flow.dst)}:${portOf(flow)}`];
  return (
    <aside class="panel" aria-label="Record" onKeyDown={(e) => e.key === "Escape" && close()}>
      <button type="button" class="quiet close" onClick={close} aria-label="Close record">✕</button>
      <h2>{from} → {to}</h2>
      <dl class="facts">
        <dt>Verdict</dt><dd>{flow.verdict} <Code code={flow.code} /> {flow.reason}</dd>
        <dt>Decided by</dt><dd>{flow.policy ?? "no policy"}</dd>
        {flow.nearest && <><dt>Nearest</dt><dd>{flow.nearest}</dd></>}
        {flow.error && <><dt>Error</dt><dd>{flow.error}</dd></>}
        <dt>Client</dt><dd class="mono">{flow.src.identity ?? "no identity"}</dd>
        <dt>Server</dt><dd class="mono">{flow.dst.identity ?? "no identity"}</dd>
        <dt>Path</dt><dd>{flow.path}</dd>
        <dt>Id</dt><dd class="mono">{flow.conn_id}</dd>
      </dl>
      <p><a href={`#/explain?from=${encodeURIComponent(from)}&to=${encodeURIComponent(to)}`}>Explain this</a></p>
      <p class="cli"><span class="cli-mark" aria-hidden="true">$</span><code>ambit why {flow.conn_id.slice(0, 12)}</code></p>
    </aside>
  );
}
