// Accessibility of what a page shows now, by axe-core: all rules of WCAG 2.2 A and AA, and best practices.
import { readFileSync } from "node:fs";

const source = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** Findings, one line each. */
export async function findings(page) {
  if (!(await page.value("typeof axe === 'object'"))) await page.value(`${source};0`);
  const { violations } = await page.value(`axe.run(document, { resultTypes: ["violations"] })
    .then(({ violations }) => ({ violations: violations.map(({ id, help, nodes }) =>
      ({ id, help, nodes: nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + " " + node.failureSummary.slice(0, 200)) })) }))`);
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.join(" | ")}`);
}
