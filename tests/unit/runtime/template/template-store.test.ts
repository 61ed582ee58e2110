/** Templates on disk: found only when whole, made once, never half there. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
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
import { join } from "node:path";
import type { HakoError } from "#base/error.ts";
import { TemplateStore } from "#runtime/template/template-store.ts";

const key = "0123456789abcdef0123456789abcdef";
const other = "f".repeat(32);
const parts = { driver: "builtin", vcpus: 1, maxVcpus: 1, memoryMib: 256, maxMemoryMib: 256 };
const DAY_S = 24 * 3600;

let dir: string;
let store: TemplateStore;
beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), "template-")), "template");
  store = new TemplateStore(dir);
});
afterEach(() => rmSync(join(dir, ".."), { recursive: true }));

const fill = async (into: string) => writeFileSync(join(into, "memory"), "m".repeat(8192));
const make = (name = key, build = fill, signal?: AbortSignal) =>
  store.make({ ...parts, key: name }, build, signal);
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "no error",
    (error: HakoError) => error.code,
  );

describe("TemplateStore", () => {
  test("make() gives what was built its name at the end, readable by its owner alone", async () => {
    let during: string[] = [];
    const template = await make(key, async (into) => {
      during = readdirSync(dir);
      expect(statSync(into).mode & 0o777).toBe(0o700);
      await fill(into);
    });
    expect(during.sort()).toEqual([`${key}.new`, "lock"]);
    expect(readdirSync(dir).sort()).toEqual([key, "lock"]);
    expect(readFileSync(join(template.dir, "memory"), "utf8")).toHaveLength(8192);
    expect(statSync(join(template.dir, "template.json")).mode & 0o777).toBe(0o600);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(await store.find(key)).toEqual(template);
    expect(template).toMatchObject(parts);
  });

  test("find() is undefined before there is one, and for an empty store", async () => {
    expect(await store.find(key)).toBeUndefined();
    await make(other);
    expect(await store.find(key)).toBeUndefined();
    expect(await new TemplateStore(join(dir, "none")).list()).toEqual([]);
  });

  test("make() builds once, however many ask for it at the same time", async () => {
    let built = 0;
    const slow = async (into: string) => {
      built++;
      await Bun.sleep(30);
      await fill(into);
    };
    // Each has a store of its own, as processes would: locks belong to open files.
    const makers = Array.from({ length: 5 }, () => new TemplateStore(dir).make({ ...parts, key }, slow));
    const templates = await Promise.all(makers);
    expect(built).toBe(1);
    expect(new Set(templates.map(({ createdAt }) => createdAt)).size).toBe(1);
  });

  test("a build that fails leaves nothing, and the next one succeeds", async () => {
    const failing = make(key, async (into) => {
      await fill(into);
      throw new Error("the machine did not start");
    });
    expect(failing).rejects.toThrow("the machine did not start");
    await failing.catch(() => {});
    expect(readdirSync(dir)).toEqual(["lock"]);
    await make();
    expect(await store.find(key)).toBeDefined();
  });

  test("a full disk is told as such", async () => {
    const full = make(key, async () => {
      throw Object.assign(new Error("no space"), { code: "ENOSPC", errno: -28 });
    });
    expect(await codeOf(full)).toBe("RESOURCE_EXHAUSTED");
    expect(readdirSync(dir)).toEqual(["lock"]);
  });

  test("what a crash left is removed by the next make(): half a template, half a removal, one without its rename", async () => {
    for (const name of [`${key}.new`, other, `${other}.new`]) {
      mkdirSync(join(dir, name), { recursive: true });
      writeFileSync(join(dir, name, "memory"), "old");
    }
    writeFileSync(join(dir, `${other}.new`, "template.json"), JSON.stringify({ ...parts, key: other }));
    expect(await store.find(other)).toBeUndefined();
    expect(await store.list()).toEqual([]);
    const template = await make();
    expect(readFileSync(join(template.dir, "memory"), "utf8")).not.toBe("old");
    expect(readdirSync(dir).sort()).toEqual([key, "lock"]);
  });

  test("a record that is cut off, or of another template, does not count", async () => {
    const { dir: made } = await make();
    const record = readFileSync(join(made, "template.json"), "utf8");
    writeFileSync(join(made, "template.json"), record.slice(0, 20));
    expect(await store.find(key)).toBeUndefined();
    writeFileSync(join(made, "template.json"), record.replace(key, other));
    expect(await store.find(key)).toBeUndefined();
  });

  test("list() tells the newest first, with what they hold on disk", async () => {
    await make(key);
    await Bun.sleep(2);
    await make(other);
    const listed = await store.list();
    expect(listed.map((template) => template.key)).toEqual([other, key]);
    expect(listed[0]?.diskBytes).toBeGreaterThanOrEqual(8192);
  });

  test("a template that nobody has used for weeks goes when another is made; one in use stays", async () => {
    const old = await make(key);
    const used = await make("a".repeat(32));
    const past = Date.now() / 1000 - 15 * DAY_S;
    for (const path of [old.dir, used.dir]) utimesSync(path, past, past);
    await store.find(used.key);
    await make(other);
    expect([existsSync(old.dir), existsSync(used.dir)]).toEqual([false, true]);
  });

  test("destroy() removes one; it is an error when there is none, or when the key is a path", async () => {
    await make(key);
    await make(other);
    await store.destroy(key);
    expect((await store.list()).map((template) => template.key)).toEqual([other]);
    expect(await codeOf(store.destroy(key))).toBe("NOT_FOUND");
    expect(await codeOf(store.destroy("../template"))).toBe("INVALID_ARGUMENT");
    expect(await codeOf(make("../x"))).toBe("INVALID_ARGUMENT");
  });

  test("waiting for another maker can be cancelled", async () => {
    const [entered, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const first = make(key, async (into) => {
      entered.resolve();
      await gate.promise;
      await fill(into);
    });
    await entered.promise;
    const abort = new AbortController();
    const second = new TemplateStore(dir).make({ ...parts, key: other }, fill, abort.signal);
    await Bun.sleep(20);
    abort.abort();
    expect(await codeOf(second)).toBe("CANCELLED");
    gate.resolve();
    await first;
  });
});
