// What part of the drawing is seen: wheel, drag, and the keys + − 0 and arrows.
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Layout } from "../layout";

const MARGIN = 24;
/** What arrows of the last column take to its right. */
const LOOPS = 90;
/** Nothing is drawn larger than it is; so many units are the least that is shown. */
const LEAST = { w: 900, h: 520 };

interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

function whole(placed: Layout): Box {
  const w = Math.max(LEAST.w, placed.w + 2 * MARGIN + LOOPS);
  const h = Math.max(LEAST.h, placed.h + 2 * MARGIN);
  return { x: (placed.w + LOOPS - w) / 2, y: (placed.h - h) / 2, w, h };
}

export function useCamera(svg: RefObject<SVGSVGElement | null>, placed: Layout) {
  const [box, set] = useState<Box | null>(null);
  const drag = useRef<{ x: number; y: number; from: Box } | null>(null);
  const seen = box ?? whole(placed);
  const zoom = (by: number, at = { x: 0.5, y: 0.5 }) => {
    const [w, h] = [seen.w * by, seen.h * by];
    if (w < 200 || w > 60000) return;
    set({ x: seen.x + (seen.w - w) * at.x, y: seen.y + (seen.h - h) * at.y, w, h });
  };
  const move = (dx: number, dy: number) => set({ ...seen, x: seen.x + dx * seen.w, y: seen.y + dy * seen.h });
  // A wheel that zooms must keep the page from scrolling, which only a listener that is not passive may.
  const now = useRef(zoom);
  now.current = zoom;
  useEffect(() => {
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const size = svg.current?.getBoundingClientRect();
      if (!size) return;
      const at = { x: (event.clientX - size.x) / size.width, y: (event.clientY - size.y) / size.height };
      now.current(event.deltaY > 0 ? 1.15 : 0.87, at);
    };
    const own = svg.current;
    own?.addEventListener("wheel", wheel, { passive: false });
    return () => own?.removeEventListener("wheel", wheel);
  }, []);
  const keys: Record<string, () => void> = {
    "+": () => zoom(0.8),
    "=": () => zoom(0.8),
    "-": () => zoom(1.25),
    "0": () => set(null),
    ArrowLeft: () => move(-0.1, 0),
    ArrowRight: () => move(0.1, 0),
    ArrowUp: () => move(0, -0.1),
    ArrowDown: () => move(0, 0.1),
  };
  const handlers = {
    onKeyDown: (event: KeyboardEvent) => {
      const act = event.ctrlKey || event.metaKey ? undefined : keys[event.key];
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    },
    onPointerDown: (event: PointerEvent) => {
      if (event.button === 0) drag.current = { x: event.clientX, y: event.clientY, from: seen };
    },
    onPointerMove: (event: PointerEvent) => {
      const size = svg.current?.getBoundingClientRect();
      if (!drag.current || !size || event.buttons !== 1) return;
      const { from, x, y } = drag.current;
      if (Math.abs(event.clientX - x) + Math.abs(event.clientY - y) < 4) return;
      const scale = Math.max(from.w / size.width, from.h / size.height);
      set({ ...from, x: from.x - (event.clientX - x) * scale, y: from.y - (event.clientY - y) * scale });
    },
    onPointerUp: () => {
      drag.current = null;
    },
  };
  return { viewBox: `${seen.x} ${seen.y} ${seen.w} ${seen.h}`, zoom, fit: () => set(null), handlers };
}
