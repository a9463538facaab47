// A headless chromium, spoken to through a pipe in its own protocol: no port that others could reach, and no package.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** Longest wait for anything that is not bounded otherwise. */
const PATIENCE_MS = 20_000;

export class Browser {
  #next = 1;
  #waiting = new Map();
  #pages = new Map();

  constructor(profile) {
    const flags = [
      "--headless=new",
      "--remote-debugging-pipe",
      // There are no users here to be kept apart, and little memory at /dev/shm in some places.
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      // Nothing but the page is asked for.
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
      "--hide-scrollbars",
      `--user-data-dir=${profile}`,
      "about:blank",
    ];
    const env = { ...process.env, HOME: profile };
    this.process = spawn("chromium", flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], env });
    let rest = "";
    this.process.stdio[4].setEncoding("utf8").on("data", (text) => {
      const parts = (rest + text).split("\0");
      rest = parts.pop();
      parts.forEach((part) => this.#take(JSON.parse(part)));
    });
    this.process.on("exit", (code) => {
      for (const { fail } of this.#waiting.values()) fail(new Error(`chromium ended with ${code}`));
      this.#waiting.clear();
    });
  }

  #take(message) {
    const asked = this.#waiting.get(message.id);
    if (asked) {
      this.#waiting.delete(message.id);
      if (message.error) asked.fail(new Error(`${asked.method}: ${message.error.message}`));
      else asked.done(message.result);
    } else this.#pages.get(message.sessionId)?.(message.method, message.params);
  }

  send(method, params = {}, sessionId) {
    const id = this.#next++;
    return new Promise((done, fail) => {
      this.#waiting.set(id, { done, fail, method });
      this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  /** A new page of a size, in a colour scheme. */
  async page({ width = 1440, height = 900, scheme = "light" } = {}) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page((method, params) => this.send(method, params, sessionId));
    this.#pages.set(sessionId, (method, params) => page.take(method, params));
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await page.send(`${domain}.enable`);
    await page.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    return page;
  }

  async close() {
    const ended = new Promise((done) => this.process.once("exit", done));
    await Promise.race([this.send("Browser.close").catch(() => {}), ended]);
    await Promise.race([ended, new Promise((done) => setTimeout(done, 5000))]);
    this.process.kill("SIGKILL");
  }
}

export class Page {
  /** Addresses that the page asked for. */
  requests = [];
  /** What a developer would see in red. */
  errors = [];

  constructor(send) {
    this.send = send;
  }

  take(method, params) {
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    else if (method === "Runtime.exceptionThrown") {
      this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === "Runtime.consoleAPICalled" && ["error", "assert", "warning"].includes(params.type)) {
      this.errors.push(params.args.map((arg) => arg.value ?? arg.description).join(" "));
    } else if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    }
  }

  /** Goes to an address, or to another view of the same page. */
  async open(url) {
    await this.send("Page.navigate", { url });
    await this.until("the page stands", "document.readyState === 'complete'");
  }

  /** The value of an expression in the page; promises are waited for. */
  async value(expression) {
    const asked = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", asked);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until an expression in the page is true; its value. */
  async until(what, expression, patience = PATIENCE_MS) {
    const end = Date.now() + patience;
    for (;;) {
      const value = await this.value(expression).catch(() => undefined);
      if (value) return value;
      if (Date.now() > end) {
        const text = await this.value("document.body.innerText").catch(() => "");
        throw new Error(`after ${patience} ms not: ${what}; the page says: ${text.slice(0, 2000)}`);
      }
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** Presses a key, as a person does. */
  async press(key, code = key) {
    const text = key.length === 1 ? key : key === "Enter" ? "\r" : undefined;
    const codes = { Enter: 13, Tab: 9, Escape: 27 };
    const event = { key, code, text, windowsVirtualKeyCode: codes[key] ?? key.toUpperCase().charCodeAt(0) };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event, text: undefined });
  }

  /** Types into what has the focus. */
  type(text) {
    return this.send("Input.insertText", { text });
  }

  async screenshot(folder, name) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(folder, `${name}.png`), Buffer.from(data, "base64"));
  }
}
