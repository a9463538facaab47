// The service map: who talks to whom, how much, how it is carried, and what is refused.
import { useMemo, useRef, useState } from "preact/hooks";
import { SAFETY_WORDS, endName, rate } from "../format";
import { type Arrow, type Box, type Graph, graph } from "../graph";
import { type Curve, type Layout, type Rect, curve, layout } from "../layout";
import { useLive } from "../live";
import { SafetyIcon, SafetyMark, Trouble, View } from "../parts";
import type { Edge } from "../types";
import { EdgeTable } from "./edges";
import { Panel } from "./panel";
import { useCamera } from "./camera";

export type Chosen = { kind: "box" | "arrow"; id: string } | null;

/** Labels on every arrow only while there is room for them. */
const LABELS_UP_TO = 36;
/** Arrows go around boxes while there are so few of them. */
const AROUND_UP_TO = 300;

function wanted(edge: Edge, text: string, deniedOnly: boolean): boolean {
  if (deniedOnly && edge.denied === 0) return false;
  if (!text) return true;
  const words = `${endName(edge.source)} ${endName(edge.destination)} ${edge.destination.service ?? ""} ${edge.port}`;
  return words.includes(text) || Object.keys(edge.codes).some((code) => code.includes(text.toUpperCase()));
}

export function MapView(_: { params: URLSearchParams }) {
  const live = useLive();
  const [text, setText] = useState("");
  const [deniedOnly, setDenied] = useState(false);
  const [asTable, setTable] = useState(false);
  const [opened, setOpened] = useState<ReadonlyMap<string, boolean>>(new Map());
  const [chosen, choose] = useState<Chosen>(null);
  const edges = useMemo(
    () => [...live.edges.values()].filter((edge) => wanted(edge, text.trim(), deniedOnly)),
    [live.edges, text, deniedOnly],
  );
  const drawn = useMemo(() => graph(edges, opened), [edges, opened]);
  const shape = drawn.boxes.map((b) => b.id).join() + "|" + drawn.arrows.map((a) => a.id).join();
  const placed = useMemo(() => layout(drawn.boxes, drawn.arrows), [shape]);
  const toggle = (namespace: string) => {
    setOpened(new Map(opened).set(namespace, !drawn.isOpen(namespace)));
    choose(null);
  };
  const cli = asTable || deniedOnly ? "ambit edges -A" : "ambit map";
  return (
    <View title="Map" cli={cli}>
      <div class="bar" role="search">
        <label>Find <input type="search" data-find value={text} onInput={(e) => setText(e.currentTarget.value)} placeholder="workload, port or code" /></label>
        <label class="check"><input type="checkbox" checked={deniedOnly} onChange={(e) => setDenied(e.currentTarget.checked)} /> Only refused</label>
        <label class="check"><input type="checkbox" checked={asTable} onChange={(e) => setTable(e.currentTarget.checked)} /> As a table</label>
        <span class="count">{drawn.workloads} workloads, {edges.length} edges, last 5 min</span>
      </div>
      <Trouble text={live.trouble} />
      {live.loaded && edges.length === 0 && !live.trouble && (
        <p class="empty">{live.edges.size ? "Nothing fits these filters." : "No connection was seen in the last five minutes."}</p>
      )}
      <div class="map-body">
        {asTable ? <EdgeTable edges={edges} /> : <Drawing graph={drawn} placed={placed} chosen={chosen} choose={choose} toggle={toggle} />}
        {chosen && <Panel chosen={chosen} graph={drawn} close={() => choose(null)} toggle={toggle} />}
      </div>
      {!asTable && <Legend />}
    </View>
  );
}

interface DrawingProps {
  graph: Graph;
  placed: Layout;
  chosen: Chosen;
  choose: (chosen: Chosen) => void;
  toggle: (namespace: string) => void;
}

function Drawing({ graph: drawn, placed, chosen, choose, toggle }: DrawingProps) {
  const svg = useRef<SVGSVGElement>(null);
  const camera = useCamera(svg, placed);
  const near = chosen && neighbours(drawn, chosen);
  const dim = (id: string) => (near && !near.has(id) ? "dim" : "");
  const ways = useMemo(() => waysOf(drawn.arrows, placed), [placed]);
  const labels = drawn.arrows.filter((a) => drawn.arrows.length <= LABELS_UP_TO || a.denied > 0 || near?.has(a.id));
  const spots = useMemo(() => spread(labels, ways), [ways, labels.map((a) => a.id).join()]);
  return (
    <div class="canvas">
      <svg ref={svg} viewBox={camera.viewBox} role="group" aria-label="Service map; tab goes from box to box, enter opens details, plus and minus zoom" {...camera.handlers}>
        <defs>
          {["plain", "refused"].map((kind) => (
            <marker key={kind} id={`tip-${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path class={`tip ${kind}`} d="M0 0 8 4 0 8z" /></marker>
          ))}
        </defs>
        {[...placed.frames].map(([namespace, rect]) => <Frame key={namespace} namespace={namespace} rect={rect} toggle={toggle} />)}
        {drawn.arrows.map((arrow) => {
          const way = ways.get(arrow.id);
          return way && <ArrowLine key={arrow.id} arrow={arrow} way={way} dim={dim(arrow.id)} choose={choose} />;
        })}
        {drawn.boxes.map((box) => {
          const rect = placed.boxes.get(box.id);
          return rect && <BoxShape key={box.id} box={box} rect={rect} dim={dim(box.id)} isChosen={chosen?.id === box.id} choose={choose} toggle={toggle} />;
        })}
        {labels.map((arrow) => {
          const spot = spots.get(arrow.id);
          return spot && <ArrowLabel key={arrow.id} arrow={arrow} spot={spot} dim={dim(arrow.id)} />;
        })}
      </svg>
      <div class="zoom" role="group" aria-label="Zoom">
        <button type="button" onClick={() => camera.zoom(0.8)} aria-label="Zoom in">+</button>
        <button type="button" onClick={() => camera.zoom(1.25)} aria-label="Zoom out">−</button>
        <button type="button" onClick={camera.fit}>Fit</button>
      </div>
    </div>
  );
}

function neighbours(drawn: Graph, chosen: NonNullable<Chosen>): Set<string> {
  const near = new Set([chosen.id]);
  for (const arrow of drawn.arrows) {
    if (arrow.id === chosen.id || arrow.from === chosen.id || arrow.to === chosen.id) {
      near.add(arrow.id).add(arrow.from).add(arrow.to);
    }
  }
  return near;
}

function waysOf(arrows: Arrow[], placed: Layout): Map<string, Curve> {
  const ways = new Map<string, Curve>();
  // Going around is worth its cost only while somebody can see it.
  const others = arrows.length <= AROUND_UP_TO ? [...placed.boxes.values()] : [];
  for (const arrow of arrows) {
    const [from, to] = [placed.boxes.get(arrow.from), placed.boxes.get(arrow.to)];
    if (from && to) ways.set(arrow.id, curve(from, to, others));
  }
  return ways;
}

const labelWidth = (arrow: Arrow): number => labelText(arrow).length * (arrow.denied > 0 ? 9.2 : 7) + 28;

function labelText(arrow: Arrow): string {
  const codes = Object.keys(arrow.codes);
  const first = codes[0];
  if (arrow.denied > 0 && first) return `${first}${codes.length > 1 ? " +" : ""}`;
  return rate(arrow.perSecond);
}

/** Places for labels that do not lie on each other, as far as that can be had. */
function spread(arrows: Arrow[], ways: Map<string, Curve>): Map<string, { x: number; y: number }> {
  const taken: Rect[] = [];
  const spots = new Map<string, { x: number; y: number }>();
  for (const arrow of arrows) {
    const way = ways.get(arrow.id);
    if (!way) continue;
    const w = labelWidth(arrow);
    const places = [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78].map((t) => way.at(t));
    const free = ({ x, y }: { x: number; y: number }) =>
      taken.every((r) => Math.abs(r.x - x) > (r.w + w) / 2 || Math.abs(r.y - y) > 22);
    const spot = places.find(free) ?? way.at(0.5);
    taken.push({ x: spot.x, y: spot.y, w, h: 20 });
    spots.set(arrow.id, spot);
  }
  return spots;
}

const onKeys = (act: () => void) => (event: KeyboardEvent) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  act();
};

function Frame({ namespace, rect, toggle }: { namespace: string; rect: Rect; toggle: (n: string) => void }) {
  const act = () => toggle(namespace);
  return (
    <g>
      <rect class="frame" x={rect.x} y={rect.y} width={rect.w} height={rect.h} rx="12" />
      <g class="frame-title" role="button" tabindex={0} onClick={act} onKeyDown={onKeys(act)}>
        <rect x={rect.x + 8} y={rect.y + 6} width={namespace.length * 8 + 28} height="24" rx="6" />
        <title>{`Collapse namespace ${namespace}`}</title>
        <text x={rect.x + 16} y={rect.y + 22}>− {namespace}</text>
      </g>
    </g>
  );
}

function ArrowLine({ arrow, way, dim, choose }: { arrow: Arrow; way: Curve; dim: string; choose: (c: Chosen) => void }) {
  const isRefused = arrow.denied > 0;
  const act = () => choose({ kind: "arrow", id: arrow.id });
  const width = 1.2 + Math.min(4, Math.log10(1 + arrow.perSecond) * 1.4);
  const codes = Object.keys(arrow.codes).join(", ");
  const words = `${arrow.from} to ${arrow.to}: ${rate(arrow.perSecond)} ${arrow.unit}, ${SAFETY_WORDS[arrow.safety]}${isRefused ? `, ${arrow.denied} refused ${codes}` : ""}`;
  return (
    <g class={`arrow ${arrow.safety} ${isRefused ? "has-refused" : ""} ${dim}`} data-edge={arrow.id} role="button" tabindex={0} aria-label={words} onClick={act} onKeyDown={onKeys(act)}>
      <path class="hit" d={way.d} />
      <path class="line" d={way.d} stroke-width={width} marker-end={`url(#tip-${isRefused ? "refused" : "plain"})`} />
    </g>
  );
}

function ArrowLabel({ arrow, spot, dim }: { arrow: Arrow; spot: { x: number; y: number }; dim: string }) {
  const w = labelWidth(arrow);
  const isRefused = arrow.denied > 0;
  return (
    <g class={`label ${isRefused ? "has-refused" : ""} ${dim}`} aria-hidden="true">
      <rect x={spot.x - w / 2} y={spot.y - 10} width={w} height="20" rx="10" />
      <SafetyMark kind={isRefused ? "refused" : arrow.safety} x={spot.x - w / 2 + 7} y={spot.y - 6} />
      <text x={spot.x - w / 2 + 22} y={spot.y + 4}>{labelText(arrow)}</text>
    </g>
  );
}

interface BoxProps {
  box: Box;
  rect: Rect;
  dim: string;
  isChosen: boolean;
  choose: (chosen: Chosen) => void;
  toggle: (namespace: string) => void;
}

function BoxShape({ box, rect, dim, isChosen, choose, toggle }: BoxProps) {
  const act = () => choose({ kind: "box", id: box.id });
  const open = () => box.kind !== "workload" && toggle(box.namespace);
  const under = box.kind === "workload" ? (box.denied ? `${box.denied} refused` : box.namespace) : `${box.count} workloads`;
  const most = 19;
  const name = box.label.length > most ? `${box.label.slice(0, most - 1)}…` : box.label;
  return (
    <g class={`box ${box.kind} ${box.denied ? "has-refused" : ""} ${isChosen ? "chosen" : ""} ${dim}`} data-box={box.id} role="button" tabindex={0} aria-pressed={isChosen} onClick={act} onDblClick={open} onKeyDown={onKeys(act)}>
      <title>{`${box.kind} ${box.namespace}/${box.label}, ${under}`}</title>
      {box.kind !== "workload" && <rect class="shadow" x={rect.x + 4} y={rect.y + 4} width={rect.w} height={rect.h} rx="8" />}
      <rect x={rect.x} y={rect.y} width={rect.w} height={rect.h} rx="8" />
      <text class="name" x={rect.x + 12} y={rect.y + 20}>{name}</text>
      <text class="under" x={rect.x + 12} y={rect.y + 36}>{under}</text>
    </g>
  );
}

function Legend() {
  return (
    <ul class="legend" aria-label="Legend">
      {(["locked", "local", "mixed", "open", "refused"] as const).map((kind) => <li key={kind}><SafetyIcon kind={kind} /></li>)}
    </ul>
  );
}
