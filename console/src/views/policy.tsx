// A policy before it is applied: which flows of the last day would be decided otherwise. Nothing is changed here.
import { useEffect, useState } from "preact/hooks";
import { post, text } from "../api";
import { ago } from "../format";
import { Code, Pill, Table, Trouble, View } from "../parts";

interface Side {
  verdict: "allow" | "deny";
  code: { code: string; name: string } | null;
  policy: string | null;
  way: string | null;
  route: string | null;
}

interface Change {
  source: string;
  destination: string;
  service: string | null;
  request: string | null;
  before: Side;
  after: Side;
  connections: number;
  last_seen: string;
}

/** A flow of which it cannot be told whether it would be decided otherwise. */
interface Unclear {
  source: string;
  destination: string;
  service: string | null;
  request: string | null;
  why: string;
  connections: number;
  last_seen: string;
}

interface Diff {
  items: Change[];
  compared?: number;
  unclear?: number;
  unclear_flows?: Unclear[];
  problems?: string[];
}

const EMPTY = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: example
  namespace: default
spec:
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["cluster.local/ns/default/sa/caller"]
`;
/** Pause after the last key until the question is asked. */
const PAUSE_MS = 500;

export function PolicyView({ params }: { params: URLSearchParams }) {
  const [yaml, setYaml] = useState(() => sessionStorage.getItem("ambit-policy") ?? EMPTY);
  const [namespace, setNamespace] = useState(params.get("namespace") ?? "");
  const [deniedToo, setDenied] = useState(false);
  const [diff, setDiff] = useState<Diff | null>(null);
  const [trouble, fail] = useState<string | null>(null);
  useEffect(() => {
    sessionStorage.setItem("ambit-policy", yaml);
    const stop = new AbortController();
    const timer = setTimeout(() => {
      if (!yaml.trim()) return setDiff(null);
      post<Diff>("policy/diff", yaml, "application/yaml", stop.signal).then(
        (found) => {
          setDiff(found);
          fail(null);
        },
        (cause: Error) => stop.signal.aborted || (setDiff(null), fail(cause.message)),
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [yaml]);
  const suggest = (event: Event) => {
    event.preventDefault();
    text("policy/suggest", { namespace, denied: deniedToo ? 1 : undefined }).then(setYaml, (cause: Error) => fail(cause.message));
  };
  return (
    <View title="Policy" cli="ambit policy diff FILE">
      <form class="bar" onSubmit={suggest}>
        <label>Namespace <input required value={namespace} data-find onInput={(e) => setNamespace(e.currentTarget.value.trim())} /></label>
        <label class="check"><input type="checkbox" checked={deniedToo} onChange={(e) => setDenied(e.currentTarget.checked)} /> Also what was refused</label>
        <button type="submit">Suggest from what was seen</button>
        <code class="note">ambit policy suggest -n {namespace || "NAMESPACE"}</code>
      </form>
      <div class="split">
        <label class="editor">Manifests <textarea spellcheck={false} value={yaml} onInput={(e) => setYaml(e.currentTarget.value)} /></label>
        <section aria-label="What would change" class="grow" aria-live="polite">
          <h2>What would change</h2>
          <Trouble text={trouble} />
          {diff && <Changes diff={diff} />}
          <p class="note">The console changes nothing. Save the text and apply it: <code>kubectl apply -f FILE</code>, in the lab <code>ambit lab apply -f FILE</code></p>
        </section>
      </div>
    </View>
  );
}

function SideCell({ side }: { side: Side }) {
  const isAllowed = side.verdict === "allow";
  const rest = side.policy ?? (isAllowed ? (side.route ?? side.way) : null);
  return <><Pill tone={isAllowed ? "good" : "bad"}>{isAllowed ? "allowed" : "refused"}</Pill> {side.code && <Code code={side.code.code} />}<br />{rest}</>;
}

function Changes({ diff }: { diff: Diff }) {
  if (diff.problems?.length) return <Trouble text={diff.problems.join("\n")} />;
  const cut = diff.items.filter((c) => c.before.verdict === "allow" && c.after.verdict === "deny").length;
  const open = diff.unclear_flows ?? [];
  const calm = open.length ? "nothing is known that would be refused" : "nothing that passes now would be refused";
  const words = cut ? `${cut} ${cut === 1 ? "flow" : "flows"} would be refused` : calm;
  return (
    <>
      <p class="verdict"><Pill tone={cut ? "bad" : open.length ? "warn" : "good"}>{words}</Pill> <span class="note">of {diff.compared ?? 0} seen in the last day{open.length > 0 && `; of ${open.length} it is unclear`}{(diff.unclear ?? 0) > 0 && `; ${diff.unclear} records say too little`}</span></p>
      <Table
        label="Changes"
        rows={diff.items}
        id={(c) => `${c.source}>${c.destination}${c.request ?? ""}`}
        empty={open.length ? "No other flow of the last day would be decided otherwise." : "No flow of the last day would be decided otherwise."}
        columns={[
          { head: "Flow", cell: (c) => <>{c.source} → {c.service ?? c.destination}<br /><span class="note">{c.request ?? c.destination}</span></> },
          { head: "Before", cell: (c) => <SideCell side={c.before} /> },
          { head: "After", cell: (c) => <SideCell side={c.after} /> },
          { head: "Connections", cell: (c) => c.connections, number: true },
          { head: "Last seen", cell: (c) => ago(c.last_seen) },
        ]}
      />
      {open.length > 0 && (
        <Table
          label="Unclear"
          rows={open}
          id={(c) => `${c.source}>${c.destination}${c.request ?? ""}`}
          empty=""
          columns={[
            { head: "Unclear flow", cell: (c) => <>{c.source} → {c.service ?? c.destination}<br /><span class="note">{c.request ?? c.destination}</span></> },
            { head: "Why", cell: (c) => c.why },
            { head: "Connections", cell: (c) => c.connections, number: true },
            { head: "Last seen", cell: (c) => ago(c.last_seen) },
          ]}
        />
      )}
    </>
  );
}
