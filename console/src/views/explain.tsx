// What happens if A calls B, and why: the same engine that decides, asked through istiod-lite.
import { useState } from "preact/hooks";
import { post } from "../api";
import { Code, Pill, Trouble, View } from "../parts";

interface Reason {
  code: string;
  name: string;
}

interface Considered {
  policy: string;
  action: string;
  dry_run: boolean;
  agrees: number[];
  rules: number;
}

interface Hop {
  step: string;
  outcome: "passed" | "refused" | "skipped" | "unknown";
  what: string;
  reason: Reason | null;
  details: string[];
  policies: Considered[];
}

interface Explanation {
  source: string;
  destination: string;
  request: string | null;
  verdict: "allow" | "deny";
  reason: Reason | null;
  decided_by: { policy: string; rule: number | null } | null;
  nearest: { policy: string; rule: number; met: number; total: number; sentence: string } | null;
  status: number | null;
  way: string | null;
  route: { route: string | null; rule: number | null; backend: string | null; others: string[] } | null;
  endpoint: string | null;
  hops: Hop[];
  assumed: string[];
}

interface Asked {
  from: string;
  to: string;
  method: string;
  path: string;
}

export function ExplainView({ params }: { params: URLSearchParams }) {
  const [asked, setAsked] = useState<Asked>({
    from: params.get("from") ?? "",
    to: params.get("to") ?? "",
    method: params.get("method") ?? "",
    path: params.get("path") ?? "",
  });
  const [answer, set] = useState<Explanation | null>(null);
  const [trouble, fail] = useState<string | null>(null);
  const ask = async (event: Event) => {
    event.preventDefault();
    const http = asked.method || asked.path ? { method: asked.method || "GET", path: asked.path || "/" } : null;
    try {
      const body = JSON.stringify({ source: asked.from, destination: asked.to, http });
      const found = await post<{ items: Explanation[] }>("explain", body, "application/json");
      set(found.items[0] ?? null);
      fail(null);
    } catch (cause) {
      set(null);
      fail((cause as Error).message);
    }
  };
  const more = `${asked.method ? ` --method ${asked.method}` : ""}${asked.path ? ` --path ${asked.path}` : ""}`;
  const field = (key: keyof Asked, label: string, hint: string) => (
    <label>{label} <input name={key} required={key === "from" || key === "to"} placeholder={hint} value={asked[key]} data-find={key === "from" ? true : undefined} onInput={(e) => setAsked({ ...asked, [key]: e.currentTarget.value.trim() })} /></label>
  );
  return (
    <View title="Explain" cli={`ambit explain ${asked.from || "NAMESPACE/POD"} ${asked.to || "NAMESPACE/SERVICE:PORT"}${more}`}>
      <form class="bar" onSubmit={ask}>
        {field("from", "From", "shop/web")}
        {field("to", "To", "shop/cart:80")}
        {field("method", "Method", "GET")}
        {field("path", "Path", "/")}
        <button type="submit" class="main">Explain</button>
      </form>
      <Trouble text={trouble} />
      {answer ? <Answer answer={answer} /> : !trouble && <p class="empty">Name a caller and what it calls: the decision is made by the functions that decide in the data plane, and nothing is sent.</p>}
    </View>
  );
}

function Answer({ answer }: { answer: Explanation }) {
  const isAllowed = answer.verdict === "allow";
  const { reason, decided_by: by, nearest, route } = answer;
  return (
    <div class="answer" role="status">
      <p class="verdict"><Pill tone={isAllowed ? "good" : "bad"}>{isAllowed ? "allowed" : "refused"}</Pill> {reason && <><Code code={reason.code} />{reason.name}</>}</p>
      <dl class="facts">
        {answer.way && <><dt>Carried</dt><dd>{answer.way}</dd></>}
        {answer.endpoint && <><dt>Ends at</dt><dd>{answer.endpoint}</dd></>}
        {route?.route && <><dt>Route</dt><dd>{route.route}{route.rule != null && ` rule ${route.rule}`}{route.backend && ` to ${route.backend}`}</dd></>}
        {by && <><dt>Decided by</dt><dd>{by.policy}{by.rule != null && ` rule ${by.rule}`}</dd></>}
        {nearest && <><dt>Nearest</dt><dd>{nearest.policy} rule {nearest.rule}, {nearest.met} of {nearest.total} conditions met: {nearest.sentence}</dd></>}
        {answer.status != null && <><dt>Client gets</dt><dd>HTTP {answer.status}</dd></>}
      </dl>
      <ol class="hops">{answer.hops.map((hop, at) => <HopItem key={at} hop={hop} />)}</ol>
      {answer.assumed.length > 0 && <><h2>Assumed</h2><ul>{answer.assumed.map((text) => <li key={text}>{text}</li>)}</ul></>}
    </div>
  );
}

const TONES = { passed: "good", refused: "bad", skipped: "plain", unknown: "warn" } as const;

function HopItem({ hop }: { hop: Hop }) {
  return (
    <li class={hop.outcome}>
      <h2>{hop.step.replaceAll("_", " ")} <Pill tone={TONES[hop.outcome]}>{hop.outcome}</Pill> {hop.reason && <Code code={hop.reason.code} />}</h2>
      <p>{hop.what}</p>
      {hop.details.length > 0 && <ul>{hop.details.map((text) => <li key={text}>{text}</li>)}</ul>}
      {hop.policies.length > 0 && (
        <ul>
          {hop.policies.map((one) => (
            <li key={one.policy}>{one.action.toUpperCase()} {one.policy}{one.dry_run && " (dry run)"}: {one.agrees.length ? `rule ${one.agrees.join(", ")} of ${one.rules} agrees` : `none of ${one.rules} rules agrees`}</li>
          ))}
        </ul>
      )}
    </li>
  );
}
