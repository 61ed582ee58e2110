import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT_CODE, encodeProgram, PAUSE_CODE } from "#base/static-program.ts";

/**
 * The image that benchmarks use when none is named: `/true` exits at once, `/pause` sleeps for ever. So a benchmark
 * needs nothing but hako, and every runtime starts the same smallest possible program.
 */
export function makeTestRootfs(dir: string): string {
  for (const folder of ["", "proc", "sys", "dev", "etc", "tmp"])
    mkdirSync(join(dir, folder), { recursive: true });
  for (const [name, code] of [
    ["true", EXIT_CODE],
    ["pause", PAUSE_CODE],
  ] as const) {
    writeFileSync(join(dir, name), encodeProgram(code));
    chmodSync(join(dir, name), 0o755);
  }
  return dir;
}
