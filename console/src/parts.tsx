// Small pieces that views are made of.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get } from "./api";
import type { Safety } from "./format";
import { SAFETY_WORDS } from "./format";
import type { Envelope } from "./types";

/** The command that shows the same in a shell. */
export function Cli({ command }: { command: string }) {
  const [told, tell] = useState("");
  const copy = () =>
    navigator.clipboard.writeText(command).then(
      () => tell("copied"),
      () => tell("select it and copy by hand"),
    );
  useEffect(() => tell(""), [command]);
  return (
    <p class="cli">
      <span class="cli-mark" aria-hidden="true">$</span>
      <code>{command}</code>
      <button type="button" class="quiet" onClick={copy} aria-label={`Copy the command ${command}`}>Copy</button>
      <span role="status">{told}</span>
    </p>
  );
}

export function View({ title, cli, children }: { title: string; cli: string; children: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} – Ambit`;
  }, [title]);
  return (
    <div class="view">
      <header class="view-head">
        <h1 id="view-title" tabIndex={-1}>{title}</h1>
        <Cli command={cli} />
      </header>
      {children}
    </div>
  );
}

export function Trouble({ text }: { text: string | null }) {
  return text ? <p class="trouble" role="alert">{text}</p> : null;
}

/** An answer that is asked for again from time to time. */
export function useList<T>(path: string, everyMs = 5000, query: Record<string, string | undefined> = {}) {
  const [answer, set] = useState<Envelope<T> | null>(null);
  const [trouble, fail] = useState<string | null>(null);
  const key = JSON.stringify(query);
  useEffect(() => {
    const stop = new AbortController();
    const ask = () =>
      get<T>(path, query, stop.signal).then(
        (found) => {
          set(found);
          fail(null);
        },
        (cause: Error) => stop.signal.aborted || fail(cause.message),
      );
    void ask();
    const timer = setInterval(ask, everyMs);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, [path, key, everyMs]);
  return { answer, items: answer?.items ?? [], trouble, loading: !answer && !trouble };
}

export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  /** Numbers stand to the right. */
  number?: boolean;
}

interface TableProps<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  empty: string;
  tone?: (row: T) => string;
}

export function Table<T>({ label, columns, rows, id, empty, tone }: TableProps<T>) {
  if (rows.length === 0) return <p class="empty">{empty}</p>;
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>{columns.map((c) => <th key={c.head} scope="col" class={c.number ? "number" : ""}>{c.head}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)} class={tone?.(row) ?? ""}>
              {columns.map((c) => <td key={c.head} class={c.number ? "number" : ""}>{c.cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What keeps an answer from being whole, if anything does. */
export function Gaps({ answer }: { answer: Envelope<unknown> | null }) {
  const told = [...(answer?.incomplete ?? [])];
  if (answer?.left_out) told.push(`${answer.left_out} more are left out`);
  if (answer?.unexpected) told.push(`${answer.unexpected} were told by a proxy that has no such workload, and are not shown`);
  if (told.length === 0) return null;
  return <p class="note" role="note">Not everything: {told.slice(0, 10).join("; ")}{told.length > 10 && ` and ${told.length - 10} more`}.</p>;
}

/** A reason code; its page in the shell is `ambit why CODE`. */
export function Code({ code }: { code: string | null | undefined }) {
  return code ? <code class="code" title={`ambit why ${code}`}>{code}</code> : <>-</>;
}

export function Pill({ tone, children }: { tone: "good" | "warn" | "bad" | "plain"; children: ComponentChildren }) {
  const marks = { good: "✓", warn: "‼", bad: "✗", plain: "·" };
  return <span class={`pill ${tone}`}><span aria-hidden="true">{marks[tone]} </span>{children}</span>;
}

const SHAPES: Record<Safety, string> = {
  locked: "M3 6V4.5a3 3 0 0 1 6 0V6h1v6H2V6zm1.5 0h3V4.5a1.5 1.5 0 0 0-3 0z",
  local: "M1 4h4v1.5H2.5v3H5V10H1zm10 6H7V8.500h2.500v-3H7V4h4zM4 6.25h4v1.500H4z",
  mixed: "M3 6V4.500a3 3 0 0 1 5.8-1L7.4 4A1.5 1.5 0 0 0 4.5 4.500V6H10v6H2V6z",
  open: "M3 6V4.500a3 3 0 0 1 5.8-1L7.4 4A1.5 1.5 0 0 0 4.5 4.500V6H10v6H2V6z",
  refused: "M6 1a5 5 0 1 1 0 10A5 5 0 0 1 6 1zM3 5.25h6v1.500H3z",
};

/** A mark of how something is carried, for use inside a drawing. */
export function SafetyMark({ kind, x, y }: { kind: Safety; x: number; y: number }) {
  return <path class={`mark ${kind}`} d={SHAPES[kind]} transform={`translate(${x} ${y})`} />;
}

export function SafetyIcon({ kind }: { kind: Safety }) {
  return (
    <span class="safety">
      <svg viewBox="0 0 12 13" width="12" height="13" aria-hidden="true"><path class={`mark ${kind}`} d={SHAPES[kind]} /></svg>
      {SAFETY_WORDS[kind]}
    </span>
  );
}
