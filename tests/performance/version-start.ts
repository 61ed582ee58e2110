/** `hako version` beside a compiled Bun hello world and /bin/true, in turns. Prints JSON; milliseconds. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleave, printResult, runCommand } from "../support/measure.ts";

const rounds = Number(process.argv[2] ?? 50);
const hako = join(import.meta.dir, "../../dist/hako");
const work = mkdtempSync(join(tmpdir(), "hako-bench-"));
try {
  const source = join(work, "hello.ts");
  const hello = join(work, "hello");
  writeFileSync(source, `console.log("hello")`);
  await runCommand([
    process.execPath,
    "build",
    "--compile",
    "--minify",
    "--bytecode",
    "--format=esm",
    source,
    "--outfile",
    hello,
  ]);
  const cases = {
    "hako version": () => runCommand([hako, "version"]),
    "bun hello world": () => runCommand([hello]),
    "/bin/true": () => runCommand(["/bin/true"]),
  };
  await interleave(cases, 3);
  printResult("version-start", { unit: "ms", results: await interleave(cases, rounds) });
} finally {
  rmSync(work, { recursive: true });
}
