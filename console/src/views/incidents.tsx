// Refusals and changes of configuration on one line of time.
import { ago, clock } from "../format";
import { Code, Pill, Trouble, View, useList } from "../parts";
import type { Incident } from "../types";

export function IncidentsView(_: { params: URLSearchParams }) {
  const { items, trouble, loading } = useList<Incident>("incidents", 3000);
  const sorted = [...items].sort((a, b) => (a.at < b.at ? 1 : -1));
  return (
    <View title="Incidents" cli="ambit flows --verdict denied">
      <Trouble text={trouble} />
      {!loading && !trouble && sorted.length === 0 && <p class="empty">No refusal and no change of configuration so far.</p>}
      {sorted.length > 0 && <Strip items={sorted} />}
      <ol class="timeline" aria-label="Newest first">
        {sorted.map((item) => <Entry key={`${item.at}${item.kind}${item.text}`} item={item} />)}
      </ol>
    </View>
  );
}

function Entry({ item }: { item: Incident }) {
  const isConfig = item.kind === "config";
  return (
    <li class={isConfig ? "config" : "refusals"}>
      <time dateTime={item.at} title={item.at}>{clock(item.at)}<br /><span class="note">{ago(item.at)}</span></time>
      <div>
        <p>
          <Pill tone={isConfig ? "plain" : "bad"}>{isConfig ? "configuration" : "refused"}</Pill>{" "}
          {item.code && <Code code={item.code} />} {item.text} {item.count != null && item.count > 1 && <strong>× {item.count}</strong>}
        </p>
        {item.object && <p class="note">{item.object}{item.revision != null && `, revision ${item.revision}`}</p>}
        {item.suspect && <p class="suspect">began after {item.suspect}</p>}
      </div>
    </li>
  );
}

/** The same as a strip: changes above the line, refusals below. */
function Strip({ items }: { items: Incident[] }) {
  const times = items.map((item) => Date.parse(item.at));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const x = (at: number) => 12 + ((at - first) / Math.max(1, last - first)) * 976;
  return (
    <svg class="strip" viewBox="0 0 1000 70" role="img" aria-label={`${items.length} events between ${clock(new Date(first).toISOString())} and ${clock(new Date(last).toISOString())}`}>
      <line class="axis" x1="0" x2="1000" y1="35" y2="35" />
      {items.map((item, at) => {
        const place = x(times[at] ?? first);
        if (item.kind === "config") return <path key={at} class="config" d={`M${place} 33l-6-12h12z`} />;
        const h = Math.min(28, 6 + Math.log2(1 + (item.count ?? 1)) * 4);
        return <rect key={at} class="refusals" x={place - 2} y="37" width="4" height={h} />;
      })}
    </svg>
  );
}
