// Writes dist/manifest.json: what the bundle was made of and what came out, so that `cargo xtask tidy` notices sources
// that changed without a build, and a bundle that changed without sources. Fails if the bundle is too large.
//
// A sum is FNV-1a of 64 bits, which both sides have in a few lines: it is against forgetting. Against forging, CI builds
// the bundle again and compares.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 300 * 1024;
const OUTSIDE = new Set(["node_modules", "dist", "README.md"]);

const files = (folder, inside = "") =>
  readdirSync(join(folder, inside), { withFileTypes: true }).flatMap((entry) => {
    const path = inside ? `${inside}/${entry.name}` : entry.name;
    return entry.isDirectory() ? files(folder, path) : [path];
  });

const sum = (bytes) => {
  let state = 0xcbf29ce484222325n;
  for (const byte of bytes) state = BigInt.asUintN(64, (state ^ BigInt(byte)) * 0x100000001b3n);
  return state.toString(16).padStart(16, "0");
};

const sums = (folder, paths) =>
  Object.fromEntries(paths.sort().map((path) => [path, sum(readFileSync(join(folder, path)))]));

const sources = readdirSync(".", { withFileTypes: true })
  .filter((entry) => !OUTSIDE.has(entry.name) && !entry.name.startsWith("."))
  .flatMap((entry) => (entry.isDirectory() ? files(".", entry.name) : [entry.name]));
const bundle = files("dist").filter((path) => path !== "manifest.json");
const gzip = bundle.reduce((total, path) => total + gzipSync(readFileSync(join("dist", path))).length, 0);
const manifest = { sources: sums(".", sources), bundle: sums("dist", bundle), gzip_bytes: gzip };
writeFileSync("dist/manifest.json", JSON.stringify(manifest, null, 2) + "\n");
console.log(`${bundle.length} files, ${gzip} bytes compressed`);
if (gzip > LIMIT) {
  console.error(`more than ${LIMIT}`);
  process.exit(1);
}
