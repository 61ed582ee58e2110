import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { version } from "#base/version.ts";

const root = join(import.meta.dir, "../../..");

test("the version is the same in code, package.json and CHANGELOG", () => {
  const manifest: unknown = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(manifest).toMatchObject({ version });
  expect(readFileSync(join(root, "CHANGELOG.md"), "utf8")).toContain(`## ${version}`);
});
