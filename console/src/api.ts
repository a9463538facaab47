// Asking istiod-lite. The token, where one is needed, comes in the address behind `#token=` and never stands in a
// request's address; requests that carry a body name themselves, which no other site can make a browser do.
import type { Envelope } from "./types";

const TOKEN = "ambit-token";

/** Takes the token out of the address, so that it is neither seen nor kept in the history. */
export function adoptToken(): void {
  const found = /^#token=([\w.~+/=-]+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(TOKEN, found[1] ?? "");
  history.replaceState(null, "", location.pathname + "#/map");
}

function headers(): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** Why there is no answer, for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text);
  }
}

async function refusal(response: Response): Promise<Refused> {
  if (response.status === 401) {
    return new Refused(401, "A token is needed. Open the console with: ambit map --open");
  }
  const text = (await response.text()).trim().slice(0, 2000);
  return new Refused(response.status, text || `istiod-lite answered ${response.status}`);
}

export type Query = Record<string, string | number | undefined>;

export function address(path: string, query: Query = {}): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(pairs.map(([key, value]) => [key, String(value)])).toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Envelope<T>> {
  const response = await fetch(address(path, query), { headers: headers(), signal: signal ?? null });
  if (!response.ok) throw await refusal(response);
  return (await response.json()) as Envelope<T>;
}

export async function text(path: string, query: Query = {}): Promise<string> {
  const response = await fetch(address(path, query), { headers: headers() });
  if (!response.ok) throw await refusal(response);
  return await response.text();
}

export async function post<T>(path: string, body: string, type: string, signal?: AbortSignal): Promise<T> {
  const sent = { ...headers(), "content-type": type, "x-ambit-console": "1" };
  const response = await fetch(address(path), { method: "POST", headers: sent, body, signal: signal ?? null });
  if (!response.ok) throw await refusal(response);
  return (await response.json()) as T;
}

/** Reads a stream line by line until it ends. */
async function lines(path: string, query: Query, signal: AbortSignal, take: (line: string) => void): Promise<void> {
  const response = await fetch(address(path, query), { headers: headers(), signal });
  if (!response.ok || !response.body) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop() ?? "";
    parts.forEach(take);
  }
}

/** Objects as they come, one a line. */
export function records<T>(path: string, query: Query, signal: AbortSignal, take: (item: T) => void): Promise<void> {
  return lines(path, query, signal, (line) => line && take(JSON.parse(line) as T));
}

/** Named events as they come (server-sent events; `EventSource` cannot carry a token). */
export function events(signal: AbortSignal, take: (name: string, data: unknown) => void): Promise<void> {
  let name = "message";
  let data = "";
  return lines("events", {}, signal, (raw) => {
    const line = raw.replace(/\r$/, "");
    if (line === "") {
      if (data) take(name, JSON.parse(data));
      name = "message";
      data = "";
    } else if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data += line.slice(5).trim();
  });
}
