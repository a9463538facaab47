// How the mesh itself is: certificates, self-tests, checks.
import { useState } from "preact/hooks";
import { ago, clock } from "../format";
import { Code, Gaps, Pill, Table, Trouble, View, useList } from "../parts";
import { Leaves } from "./leaves";
import type { Certificate, Check, SelfTest, Step } from "../types";

type Props = { params: URLSearchParams };

export function CertificatesView(_: Props) {
  const { answer, items, trouble, loading } = useList<Certificate>("certificates", 10000);
  const [text, setText] = useState("");
  const roots = items.filter((c) => c.kind === "root");
  const leaves = items.filter((c) => c.kind !== "root");
  const found = leaves.filter((c) => `${c.name} ${c.node} ${c.state}`.includes(text.trim()));
  const authority = answer as unknown as { phase?: string; trust_domain?: string; steps?: Step[]; problem?: string | null } | null;
  return (
    <View title="Certificates" cli="ambit ca status">
      <Trouble text={trouble ?? authority?.problem ?? null} />
      {authority?.phase && <p>Trust domain <strong>{authority.trust_domain}</strong>, rotation: <strong>{authority.phase}</strong></p>}
      {!loading && (
        <Table
          label="Roots"
          rows={roots}
          id={(c) => `${c.name}${c.serial}`}
          empty="No root is known."
          columns={[
            { head: "Name", cell: (c) => <span class="mono">{c.name}</span> },
            { head: "State", cell: (c) => c.state },
            { head: "Sum", cell: (c) => <span class="mono">{c.serial ?? "-"}</span> },
            { head: "Ends", cell: (c) => <span title={c.not_after ?? ""}>{ago(c.not_after)}</span> },
          ]}
        />
      )}
      {!loading && (
        <>
          <h2>Of workloads</h2>
          <div class="bar" role="search">
            <label>Find <input type="search" data-find value={text} onInput={(e) => setText(e.currentTarget.value)} placeholder="identity, node or state" /></label>
            <span class="count">{found.length} of {leaves.length}, the soonest to end first</span>
          </div>
          <Gaps answer={answer} />
          <Leaves rows={found} label="Certificates of workloads" empty={leaves.length === 0 ? "No proxy tells of a certificate." : "No certificate fits."} />
        </>
      )}
      {(authority?.steps?.length ?? 0) > 0 && (
        <>
          <h2>Rotation</h2>
          <Table
            label="Steps of the rotation"
            rows={authority?.steps ?? []}
            id={(s) => s.step}
            empty=""
            columns={[
              { head: "Step", cell: (s) => s.step },
              { head: "State", cell: (s) => <Pill tone={s.state === "done" ? "good" : s.state === "now" ? "warn" : "plain"}>{s.state}</Pill> },
              { head: "Evidence", cell: (s) => s.evidence },
            ]}
          />
        </>
      )}
    </View>
  );
}

export function SelfTestsView(_: Props) {
  const { items, trouble, loading } = useList<SelfTest>("selftests", 5000);
  return (
    <View title="Self-tests" cli="ambit status">
      <p class="note">Each node tries once a minute what must pass and what must not. A refused flow that passes is the loudest alarm.</p>
      <Trouble text={trouble} />
      {!loading && (
        <Table
          label="Self-tests"
          rows={items}
          id={(t) => `${t.node}${t.test}`}
          empty="No node has told of a self-test yet."
          tone={(t) => (t.passed === false ? "bad" : "")}
          columns={[
            { head: "Node", cell: (t) => t.node },
            { head: "Test", cell: (t) => t.test },
            { head: "Result", cell: (t) => <Pill tone={t.passed == null ? "plain" : t.passed ? "good" : "bad"}>{t.result ?? (t.passed == null ? "not run" : t.passed ? "passed" : "failed")}</Pill> },
            { head: "When", cell: (t) => <span title={t.at ?? ""}>{t.at ? `${clock(t.at)} (${ago(t.at)})` : "-"}</span> },
            { head: "Detail", cell: (t) => t.detail ?? "" },
          ]}
        />
      )}
    </View>
  );
}

export function ChecksView(_: Props) {
  const { items, trouble, loading } = useList<Check>("checks", 5000);
  const categories = [...new Set(items.map((check) => check.category))];
  const tones = { success: "good", warning: "warn", error: "bad" } as const;
  return (
    <View title="Checks" cli="ambit check">
      <Trouble text={trouble} />
      {!loading && items.length === 0 && !trouble && <p class="empty">Nothing to check yet.</p>}
      {categories.map((category) => (
        <section key={category}>
          <h2>{category}</h2>
          <ul class="checks">
            {items.filter((check) => check.category === category).map((check) => (
              <li key={`${check.description}${check.error}`}>
                <Pill tone={tones[check.result]}>{check.description}</Pill>
                {check.error && <p>{check.error} {/^AMB\d{4}/.test(check.error) && <Code code={check.error.slice(0, 7)} />}</p>}
                {check.hint && <p class="note">{check.hint}</p>}
              </li>
            ))}
          </ul>
        </section>
      ))}
    </View>
  );
}
