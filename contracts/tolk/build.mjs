// Compiles each contract with the pinned compiler into DIR/NAME.json (DIR is ../build, or the first argument).
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { getTolkCompilerVersion, runTolkCompiler } from "@ton/tolk-js";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "build");
const want = "1.3.0";

const got = await getTolkCompilerVersion();
if (got !== want) {
  throw new Error(`tolk version: got ${got}, want ${want}`);
}
mkdirSync(out, { recursive: true });
for (const name of ["channel", "registry", "worker"]) {
  const r = await runTolkCompiler({
    entrypointFileName: `${name}.tolk`,
    fsReadCallback: (path) => readFileSync(join(here, path), "utf-8"),
  });
  if (r.status !== "ok") {
    throw new Error(r.message);
  }
  if (r.stderr) {
    throw new Error(`${name}.tolk: warnings are errors\n${r.stderr}`);
  }
  const sources = r.sourcesSnapshot
    .filter((s) => !s.filename.startsWith("@stdlib"))
    .map((s) => ({ file: s.filename, sha256: createHash("sha256").update(s.contents).digest("hex") }));
  const artifact = { tolkVersion: got, codeHashHex: r.codeHashHex.toLowerCase(), codeBoc64: r.codeBoc64, sources };
  writeFileSync(join(out, `${name}.json`), JSON.stringify(artifact, null, 2) + "\n");
}
