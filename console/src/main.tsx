// The console: a view for each address behind `#/`, keys to go between them, and one stream of what happens.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { adoptToken } from "./api";
import { endName, portOf } from "./format";
import { follow, useLive } from "./live";
import "./style.css";
import { CertificatesView, ChecksView, SelfTestsView } from "./views/state";
import { ExplainView } from "./views/explain";
import { FlowsView } from "./views/flows";
import { IncidentsView } from "./views/incidents";
import { MapView } from "./views/map";
import { NodesView } from "./views/nodes";
import { PolicyView } from "./views/policy";
import { WorkloadsView } from "./views/workloads";

export type Params = URLSearchParams;

const VIEWS = [
  { path: "map", title: "Map", view: MapView },
  { path: "workloads", title: "Workloads", view: WorkloadsView },
  { path: "flows", title: "Flows", view: FlowsView },
  { path: "explain", title: "Explain", view: ExplainView },
  { path: "policy", title: "Policy", view: PolicyView },
  { path: "incidents", title: "Incidents", view: IncidentsView },
  { path: "nodes", title: "Nodes", view: NodesView },
  { path: "certificates", title: "Certificates", view: CertificatesView },
  { path: "selftests", title: "Self-tests", view: SelfTestsView },
  { path: "checks", title: "Checks", view: ChecksView },
] as const;

function useAddress(): { path: string; params: Params; whole: string } {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const changed = () => set(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  return { path: path || "map", params: new URLSearchParams(query), whole: hash };
}

function useKeys(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      const view = VIEWS[Number(event.key) - 1] ?? (event.key === "0" && !target.closest("svg") ? VIEWS[9] : undefined);
      if (view) location.hash = `#/${view.path}`;
      if (event.key === "/") {
        event.preventDefault();
        document.querySelector<HTMLInputElement>("[data-find]")?.focus();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

function useTheme(): [Theme, () => void] {
  const [theme, set] = useState<Theme>(() => THEMES.find((t) => t === localStorage.getItem("ambit-theme")) ?? "system");
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    localStorage.setItem("ambit-theme", theme);
  }, [theme]);
  return [theme, () => set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system")];
}

/** The newest refusal, told as it comes, also to those who do not look at the map. */
function LastRefusal() {
  const { refusals } = useLive();
  const last = refusals[0];
  return (
    <p class="last-refusal" role="status">
      {last && <>Refused: {endName(last.src)} → {endName(last.dst)}:{portOf(last)} <code class="code">{last.code}</code> <a href="#/flows?verdict=denied">all refusals</a></>}
    </p>
  );
}

function App() {
  const { path, params, whole } = useAddress();
  const live = useLive();
  const [theme, nextTheme] = useTheme();
  useKeys();
  const current = VIEWS.find((view) => view.path === path) ?? VIEWS[0];
  const Shown = current.view;
  return (
    <>
      <a class="skip" href="#view-title" onClick={(e) => { e.preventDefault(); document.getElementById("view-title")?.focus(); }}>Skip to the view</a>
      <header class="top">
        <span class="brand">Ambit</span>
        <nav aria-label="Views">
          {VIEWS.map((view, at) => (
            <a key={view.path} href={`#/${view.path}`} aria-current={view === current ? "page" : undefined} title={`key ${(at + 1) % 10}`}>{view.title}</a>
          ))}
        </nav>
        <span class={`link ${live.connected ? "good" : "bad"}`} role="status">{live.connected ? "live" : "not connected"}</span>
        <button type="button" class="quiet" onClick={nextTheme}>Theme: {theme}</button>
      </header>
      <LastRefusal />
      <main>
        <Shown key={current === VIEWS[0] ? "map" : whole} params={params} />
      </main>
    </>
  );
}

adoptToken();
void follow(new AbortController().signal);
const root = document.getElementById("app");
if (root) render(<App />, root);
