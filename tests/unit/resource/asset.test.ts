import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { type EmbeddedFile, setEmbedded } from "#base/embedded.ts";
import { ensureAssets } from "#resource/asset.ts";

const NAMES = [
  "vmlinux",
  "initrd",
  "ld-linux-x86-64.so.2",
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libgcc_s.so.1",
  "librt.so.1",
  "libpthread.so.0",
];
const DAY_S = 24 * 3600;

let dir: string;

/** What the executable would hold; `version` changes its kernel. */
function embed(version: string): void {
  const files = NAMES.map((name): [string, EmbeddedFile] => {
    const path = join(dir, `embedded-${name}`);
    const content = `${name} ${name === "vmlinux" ? version : ""}`;
    writeFileSync(path, content);
    return [
      name,
      { path, sha256: new Bun.CryptoHasher("sha256").update(content).digest("hex"), size: content.length },
    ];
  });
  setEmbedded(new Map(files));
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-asset-"));
});
afterAll(() => {
  rmSync(dir, { recursive: true });
  setEmbedded(new Map());
});

describe("ensureAssets()", () => {
  test("unpacks once, and again what somebody has deleted", async () => {
    embed("1");
    const stateDir = join(dir, "once");
    const assets = await ensureAssets(stateDir);
    expect(readFileSync(assets.kernelPath, "utf8")).toBe("vmlinux 1");
    expect(readFileSync(assets.initrdPath, "utf8")).toBe("initrd ");
    expect(readFileSync(assets.guestImagePath).readUInt32LE(1024)).toBe(0xe0f5e1e2); // EROFS_SUPER_MAGIC_V1
    const made = statSync(assets.guestImagePath).mtimeMs;
    expect(await ensureAssets(stateDir)).toEqual(assets);
    expect(statSync(assets.guestImagePath).mtimeMs).toBe(made);

    rmSync(assets.kernelPath);
    expect(await ensureAssets(stateDir)).toEqual(assets);
    expect(readFileSync(assets.kernelPath, "utf8")).toBe("vmlinux 1");
    expect(readdirSync(join(stateDir, "asset"))).toHaveLength(1);
  });

  test("many that unpack at once make one set", async () => {
    embed("2");
    const stateDir = join(dir, "race");
    const all = await Promise.all(Array.from({ length: 5 }, () => ensureAssets(stateDir)));
    expect(new Set(all.map(({ kernelPath }) => kernelPath)).size).toBe(1);
    expect(readdirSync(join(stateDir, "asset"))).toHaveLength(1);
  });

  test("another executable has another set; one that nobody uses any more goes with time", async () => {
    const stateDir = join(dir, "versions");
    embed("3");
    const old = dirname((await ensureAssets(stateDir)).kernelPath);
    embed("4");
    await ensureAssets(stateDir);
    expect(readdirSync(join(stateDir, "asset"))).toHaveLength(2);
    const now = Date.now() / 1000;
    utimesSync(old, now - 10 * DAY_S, now - 10 * DAY_S);
    embed("3");
    await ensureAssets(stateDir);
    expect(statSync(old).mtimeMs / 1000).toBeGreaterThan(now - DAY_S);
    utimesSync(old, now - 30 * DAY_S, now - 30 * DAY_S);
    embed("5");
    await ensureAssets(stateDir);
    const left = readdirSync(join(stateDir, "asset"));
    expect(left).toHaveLength(2);
    expect(left.map((name) => join(stateDir, "asset", name))).not.toContain(old);
  });

  test("what a killed start has left half-made goes an hour later", async () => {
    const stateDir = join(dir, "killed");
    const left = join(stateDir, "asset", ".new-left");
    for (const path of [left, join(stateDir, "asset", ".new-busy")]) mkdirSync(path, { recursive: true });
    const past = Date.now() / 1000 - 2 * 3600;
    utimesSync(left, past, past);
    embed("6");
    const { kernelPath } = await ensureAssets(stateDir);
    const names = readdirSync(join(stateDir, "asset")).sort();
    expect(names).toEqual([".new-busy", basename(dirname(kernelPath))]);
  });

  test("leaves nothing half-made when a part is missing, and says that the executable is not complete", async () => {
    setEmbedded(new Map());
    await expect(ensureAssets(join(dir, "nothing"))).rejects.toThrow("not a complete hako executable");
    embed("6");
    rmSync(join(dir, "embedded-initrd"));
    const stateDir = join(dir, "half");
    mkdirSync(stateDir);
    await expect(ensureAssets(stateDir)).rejects.toThrow();
    expect(readdirSync(join(stateDir, "asset"))).toEqual([]);
  });
});
