// Where boxes stand: callers left of whom they call, namespaces as frames around their workloads. Depends on nothing but
// who calls whom, so that numbers may change each second and nothing moves.
import type { Arrow, Box } from "./graph";

export const WIDTH = 160;
export const HEIGHT = 46;
const GAP_X = 100;
const GAP_Y = 40;
const PAD = 16;
const TITLE = 26;
/** Rows of a column before it goes on beside itself. */
const ROWS_MAX = 10;
/** Columns that a chain may fill at least; a longer one shares them, or it would be a line that nobody can read. */
const COLUMNS_MIN = 5;

export interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Layout {
  boxes: Map<string, Rect>;
  frames: Map<string, Rect>;
  w: number;
  h: number;
}

type Pair = readonly [string, string];

/** Columns of names, callers first; a call that closes a circle counts for nothing. */
function columns(names: string[], calls: Pair[]): string[][] {
  const known = new Set(names);
  const next = new Map<string, string[]>();
  for (const [from, to] of calls) {
    if (from !== to && known.has(from) && known.has(to)) next.set(from, [...(next.get(from) ?? []), to]);
  }
  const depth = depths(names, next);
  const deep = 1 + Math.max(0, ...depth.values());
  const wide = Math.min(deep, Math.max(COLUMNS_MIN, Math.ceil(1.2 * Math.sqrt(names.length))));
  const found: string[][] = [];
  for (const name of names) (found[Math.floor(((depth.get(name) ?? 0) * wide) / deep)] ??= []).push(name);
  const filled = Array.from(found, (column) => column ?? []).filter((column) => column.length > 0);
  settle(filled, next);
  return filled.flatMap(wrap);
}

/** The longest way to each name, without going round. */
function depths(names: string[], next: Map<string, string[]>): Map<string, number> {
  const order: string[] = [];
  const state = new Map<string, "open" | "done">();
  const forward = new Map<string, string[]>();
  const visit = (name: string): void => {
    state.set(name, "open");
    for (const to of next.get(name) ?? []) {
      if (state.get(to) === "open") continue;
      forward.set(name, [...(forward.get(name) ?? []), to]);
      if (!state.has(to)) visit(to);
    }
    state.set(name, "done");
    order.push(name);
  };
  const called = new Set([...next.values()].flat());
  // Those whom nobody calls begin.
  for (const name of [...names.filter((n) => !called.has(n)), ...names]) if (!state.has(name)) visit(name);
  const depth = new Map<string, number>();
  for (const name of order.reverse()) {
    const own = depth.get(name) ?? 0;
    depth.set(name, own);
    for (const to of forward.get(name) ?? []) depth.set(to, Math.max(depth.get(to) ?? 0, own + 1));
  }
  return depth;
}

/** Orders each column by where its callers stand. */
function settle(found: string[][], next: Map<string, string[]>): void {
  const row = new Map<string, number>();
  const place = (column: string[]) => column.forEach((name, at) => row.set(name, at - column.length / 2));
  found.forEach(place);
  for (let round = 0; round < 3; round += 1) {
    for (const column of found.slice(1)) {
      const weight = new Map(column.map((name) => [name, row.get(name) ?? 0]));
      for (const name of column) {
        const callers = [...next].filter(([, to]) => to.includes(name)).map(([from]) => row.get(from) ?? 0);
        if (callers.length) weight.set(name, callers.reduce((a, b) => a + b, 0) / callers.length);
      }
      column.sort((a, b) => (weight.get(a) ?? 0) - (weight.get(b) ?? 0) || (a < b ? -1 : 1));
      place(column);
    }
  }
}

function wrap(column: string[]): string[][] {
  const parts = Math.ceil(column.length / ROWS_MAX);
  const rows = Math.ceil(column.length / parts);
  return Array.from({ length: parts }, (_, part) => column.slice(part * rows, (part + 1) * rows));
}

interface Size {
  w: number;
  h: number;
}

/** Sets columns of things beside each other, each column in the middle. */
function arrange(cols: string[][], size: (name: string) => Size, gapX: number, gapY: number) {
  const at = new Map<string, Rect>();
  const tall = cols.map((col) => col.reduce((sum, name) => sum + size(name).h + gapY, -gapY));
  const h = Math.max(0, ...tall);
  let x = 0;
  cols.forEach((col, index) => {
    const w = Math.max(0, ...col.map((name) => size(name).w));
    let y = (h - (tall[index] ?? 0)) / 2;
    for (const name of col) {
      const own = size(name);
      at.set(name, { x: x + (w - own.w) / 2, y, ...own });
      y += own.h + gapY;
    }
    x += w + gapX;
  });
  return { at, w: Math.max(0, x - gapX), h };
}

/** Places everything. */
export function layout(boxes: Box[], arrows: Arrow[]): Layout {
  const namespaceOf = new Map(boxes.map((box) => [box.id, box.namespace]));
  const calls: Pair[] = arrows.map((arrow) => [arrow.from, arrow.to]);
  const between: Pair[] = calls.map(([from, to]) => [namespaceOf.get(from) ?? "", namespaceOf.get(to) ?? ""]);
  const inside = new Map<string, ReturnType<typeof arrange>>();
  for (const namespace of new Set(boxes.map((box) => box.namespace))) {
    const members = boxes.filter((box) => box.namespace === namespace).map((box) => box.id);
    inside.set(namespace, arrange(columns(members, calls), () => ({ w: WIDTH, h: HEIGHT }), GAP_X, GAP_Y));
  }
  const collapsed = new Set(boxes.filter((box) => box.kind === "namespace").map((box) => box.namespace));
  const size = (namespace: string): Size => {
    const own = inside.get(namespace) ?? { w: 0, h: 0 };
    if (collapsed.has(namespace)) return { w: own.w, h: own.h };
    return { w: own.w + 2 * PAD, h: own.h + 2 * PAD + TITLE };
  };
  const outer = arrange(columns([...inside.keys()].sort(), between), size, GAP_X, GAP_Y);
  const found: Layout = { boxes: new Map(), frames: new Map(), w: outer.w, h: outer.h };
  for (const [namespace, frame] of outer.at) {
    const open = !collapsed.has(namespace);
    if (open) found.frames.set(namespace, frame);
    for (const [id, rect] of inside.get(namespace)?.at ?? []) {
      const [dx, dy] = open ? [PAD, PAD + TITLE] : [0, 0];
      found.boxes.set(id, { ...rect, x: frame.x + dx + rect.x, y: frame.y + dy + rect.y });
    }
  }
  return found;
}

export interface Curve {
  d: string;
  /** A place on it, from 0 to 1. */
  at: (t: number) => { x: number; y: number };
}

/** How far an arrow may bow to go around boxes, nearest first. */
const BOWS = [0, 60, -60, 110, -110, 170, -170, 240, -240, 320, -320];
const SAMPLES = Array.from({ length: 23 }, (_, at) => (at + 1) / 24);

/** The way of an arrow from one box to another, around as many of the others as can be. */
export function curve(from: Rect, to: Rect, others: Iterable<Rect>): Curve {
  const boxes = [...others].filter((box) => box !== from && box !== to);
  let best: { way: Curve; hits: number } | null = null;
  for (const bow of BOWS) {
    const way = bowed(from, to, bow);
    const hits = SAMPLES.map(way.at).filter((p) => boxes.some((box) => covers(box, p))).length;
    if (!best || hits < best.hits) best = { way, hits };
    if (hits === 0) break;
  }
  return best?.way ?? bowed(from, to, 0);
}

const covers = (box: Rect, { x, y }: { x: number; y: number }): boolean =>
  x > box.x - 6 && x < box.x + box.w + 6 && y > box.y - 6 && y < box.y + box.h + 6;

function bowed(from: Rect, to: Rect, bow: number): Curve {
  const isBack = to.x + to.w / 2 < from.x + from.w / 2 - 1;
  const isSame = Math.abs(to.x - from.x) < from.w;
  const [x1, y1] = [isBack && !isSame ? from.x : from.x + from.w, from.y + from.h / 2 + (isBack ? 8 : 0)];
  const [x2, y2] = [isSame || isBack ? to.x + to.w : to.x, to.y + to.h / 2 + (isBack ? 8 : 0)];
  const bend = isSame ? 56 : Math.max(40, Math.abs(x2 - x1) / 2);
  const way = isBack && !isSame ? -1 : 1;
  const [c1, c2] = [x1 + way * bend, isSame ? x2 + bend : x2 - way * bend];
  const at = (t: number) => {
    const u = 1 - t;
    const mix = (a: number, b: number, c: number, d: number) =>
      u * u * u * a + 3 * u * u * t * b + 3 * u * t * t * c + t * t * t * d;
    return { x: mix(x1, c1, c2, x2), y: mix(y1, y1 + bow, y2 + bow, y2) };
  };
  return { d: `M${x1} ${y1}C${c1} ${y1 + bow} ${c2} ${y2 + bow} ${x2} ${y2}`, at };
}
