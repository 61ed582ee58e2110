import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setEmbedded } from "#base/embedded.ts";

const root = join(import.meta.dir, "../..");

/** What was built stands for what travels in the executable; all of it, or only the files named. */
export function embedBuilt(only?: readonly string[]): void {
  const files: (readonly [name: string, file: string])[] = [
    ["vmlinux", "dist/kernel/vmlinux"],
    ["libhako.so", "dist/native/libhako.so"],
    ["seccomp-default.json", "config/seccomp/default.json"],
    ...(only ? [] : readdirSync(join(root, "dist/guest"))).map(
      (name) => [name, `dist/guest/${name}`] as const,
    ),
  ];
  const entries = files
    .filter(([name]) => only === undefined || only.includes(name))
    .map(([name, file]) => {
      const path = join(root, file);
      const sha256 = new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
      return [name, { path, sha256, size: statSync(path).size }] as const;
    });
  setEmbedded(new Map(entries));
}
