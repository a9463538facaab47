// Looks at every view of a console in a real browser: look.mjs URL FOLDER CALLER SERVER STRANGER NODES
//
// CALLER calls SERVER all the time, STRANGER is refused once this script says that it waits for that; all three are
// NAMESPACE/NAME, NODES has commas. Tells what it saw as one JSON object a line, the last of kind "end"; screenshots go
// into the folder. Decides nothing: the test does.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findings } from "./axe.mjs";
import { Browser } from "./browser.mjs";

const [base, folder, caller, server, stranger, nodes] = process.argv.slice(2);
const VIEWS = ["map", "workloads", "flows", "explain", "policy", "incidents", "nodes", "certificates", "selftests", "checks"];
const accessibility = [];
const commands = {};

const tell = (kind, facts = {}) => console.log(JSON.stringify({ kind, ...facts }));
const quoted = (text) => JSON.stringify(text);
const edge = (from, to) => `document.querySelector('[data-edge="${from}>${to}"]')`;
/** Sets a field as typing does. */
const fill = (page, selector, text) =>
  page.value(`(() => {
    const field = document.querySelector(${quoted(selector)});
    field.focus();
    field.select();
  })()`).then(() => page.type(text));

/** Keeps a picture, the command and what axe says of what is shown. */
async function note(page, name, scheme) {
  await page.screenshot(folder, `${name}-${scheme}`);
  commands[name] = await page.value("document.querySelector('.view-head .cli code').textContent");
  for (const finding of await findings(page)) accessibility.push(`${name} (${scheme}): ${finding}`);
}

async function map(page) {
  await page.open(`${base}/#/map`);
  await page.until("the caller's edge", `!!${edge(caller, server)}`);
  tell("map", { workloads: await page.value("[...document.querySelectorAll('[data-box]')].map((box) => box.dataset.box)") });
  await note(page, "map", "light");
  tell("waiting", { at: Date.now() });
  const refused = `!!${edge(stranger, server)}?.classList.contains('has-refused')`;
  await page.until("the refused edge", refused, 60_000);
  const label = await page.value(`${edge(stranger, server)}.getAttribute('aria-label')`);
  tell("refused", { at: Date.now(), label });
  await note(page, "map-refused", "light");
}

/** The number that the map tells of an edge, once it has settled. */
async function rate(page) {
  await new Promise((done) => setTimeout(done, 7000));
  const label = await page.value(`${edge(caller, server)}.getAttribute('aria-label')`);
  tell("rate", { label });
}

/** With keys alone: to a box, its details, away again, and to another view. */
async function keyboard(page) {
  await page.value(`document.querySelector('[data-box=${quoted(server)}]').focus()`);
  await page.press("Enter");
  await page.until("details by key", "!!document.querySelector('.panel')");
  await note(page, "map-details", "light");
  await page.press("Escape");
  await page.until("details closed by key", "!document.querySelector('.panel')");
  await page.value("document.activeElement.blur()");
  await page.press("7", "Digit7");
  await page.until("another view by key", "location.hash === '#/nodes'");
}

async function node(page) {
  await page.until("every node", `${JSON.stringify(nodes.split(","))}.every((name) => document.querySelector('main').innerText.includes(name))`);
  await note(page, "nodes", "light");
  tell("nodes", { text: await page.value("document.querySelector('main').innerText") });
}

/** A policy that lets nobody in: the caller's flows have to be told as lost before anything is applied. */
async function policy(page) {
  await page.open(`${base}/#/policy`);
  const [namespace] = server.split("/");
  const nobody = `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: ${namespace}}\nspec: {action: DENY, rules: [{}]}\n`;
  await fill(page, ".editor textarea", nobody);
  await page.until("the flows that would be refused", "/flows? would be refused/.test(document.querySelector('main').innerText)");
  await note(page, "policy-diff", "light");
  tell("policy", { text: await page.value("document.querySelector('[aria-label=\"Changes\"]').innerText") });
  await fill(page, ".editor textarea", "kind: Nonsense\n");
  await page.until("what is wrong with a manifest", "!!document.querySelector('main [role=alert]')");
}

async function explain(page) {
  const of = (from) => `${base}/#/explain?from=${encodeURIComponent(from)}&to=${encodeURIComponent(`${server}:80`)}`;
  const verdicts = {};
  for (const from of [caller, stranger]) {
    await page.open(of(from));
    await page.until("the form is filled", `document.querySelector('[name=from]').value === ${quoted(from)}`);
    await page.value("document.querySelector('form button').click()");
    await page.until("the answer", "!!document.querySelector('.answer .verdict')");
    verdicts[from] = await page.value("document.querySelector('.answer .verdict').innerText");
  }
  await note(page, "explain-answer", "light");
  tell("explain", { verdicts });
}

/** What a table says, once it has rows. */
async function table(page, label) {
  const rows = `[...document.querySelectorAll('[aria-label=${quoted(label)}] tbody tr')]`;
  await page.until(`rows of ${label}`, `${rows}.length > 0`, 30_000);
  return await page.value(`${rows}.map((row) => row.innerText)`);
}

/** The certificates that nodes hold, among all and on the page of a workload. */
async function certificates(page) {
  await page.open(`${base}/#/certificates`);
  const all = await table(page, "Certificates of workloads");
  await page.open(`${base}/#/workloads?name=${encodeURIComponent(caller)}`);
  const own = await table(page, "Certificate of the workload");
  await note(page, "workload", "light");
  tell("leaves", { all, own });
}

/** What the server refused before its page was opened, and what it goes by. */
async function refusals(page) {
  await page.open(`${base}/#/workloads?name=${encodeURIComponent(server)}`);
  const recent = await table(page, "Recent refusals");
  const day = await table(page, "Refused in the last day");
  const policies = await table(page, "Policies that apply");
  tell("refusals", { recent, day, policies });
}

/** The page of the caller's node. Its connections come and go, so that there need not be one at the moment. */
async function oneNode(page) {
  const [name] = nodes.split(",");
  await page.open(`${base}/#/nodes?name=${encodeURIComponent(name)}`);
  const certificates = await table(page, "Certificates of the node");
  const identities = await table(page, "Identities");
  await note(page, "node", "light");
  tell("node", { certificates, identities, text: await page.value("document.querySelector('main').innerText") });
}

/** Every view, in a scheme. */
async function views(page, scheme) {
  for (const view of VIEWS) {
    await page.open(`${base}/#/${view}`);
    await page.until(`the view ${view}`, `location.hash === '#/${view}' && !!document.querySelector('.view-head h1')`);
    // Lists are asked for once the view stands.
    await new Promise((done) => setTimeout(done, 500));
    await note(page, view, scheme);
  }
}

mkdirSync(folder, { recursive: true });
const profile = mkdtempSync(join(tmpdir(), "ambit-console-"));
const browser = new Browser(profile);
try {
  const page = await browser.page();
  await map(page);
  await rate(page);
  await keyboard(page);
  await node(page);
  await policy(page);
  await explain(page);
  await certificates(page);
  await refusals(page);
  await oneNode(page);
  await views(page, "light");
  // A page behind another one is not drawn, so the first one is done before the second begins.
  const dark = await browser.page({ scheme: "dark" });
  await views(dark, "dark");
  const requests = [...page.requests, ...dark.requests];
  const foreign = requests.filter((url) => new URL(url).origin !== new URL(base).origin);
  tell("end", { errors: [...page.errors, ...dark.errors], foreign, accessibility, commands, requests: requests.length });
} catch (cause) {
  tell("failed", { cause: String(cause?.stack ?? cause) });
  process.exitCode = 1;
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
