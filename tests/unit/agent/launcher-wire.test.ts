import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as wire from "#agent/launcher/wire.ts";

const header = readFileSync(join(import.meta.dir, "../../../native/init/wire.h"), "utf8");
const defines = new Map(
  [...header.matchAll(/^#define HAKO_(\w+)\s+(0x[0-9a-f]+|\d+)/gm)].map(([, name = "", value]) => [
    name,
    Number(value),
  ]),
);

/** wire.ts's tables with the names that the header gives their members. */
function tableOf(prefix: string, table: Readonly<Record<string, number>>): [string, number][] {
  return Object.entries(table).map(([name, value]) => [`${prefix}_${name}`, value]);
}

test("wire.ts has the numbers of wire.h, no more and no fewer", () => {
  const { OP, FIELD, FLAG, MOUNT, HOOK, LABEL, STEP, ...limits } = wire;
  const ours = new Map<string, number>([
    ...tableOf("OP", OP),
    ...tableOf("FIELD", FIELD),
    ...tableOf("FLAG", FLAG),
    ...tableOf("MOUNT", MOUNT),
    ...tableOf("HOOK", HOOK),
    ...tableOf("LABEL", LABEL),
    ...tableOf("STEP", STEP),
    ...Object.entries(limits),
  ]);
  expect([...ours].sort()).toEqual([...defines].sort());
  expect(ours.size).toBeGreaterThan(60);
});
