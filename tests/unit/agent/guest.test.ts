import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGuestDetails } from "#agent/guest-details.ts";
import { setGuestDns } from "#agent/guest-dns.ts";
import { onlineCpus, onlineMemory } from "#agent/online.ts";
import { findSerialPort } from "#agent/server.ts";

let directory = "";
const at = (path: string) => join(directory, path);

function put(path: string, text: string): void {
  mkdirSync(join(at(path), ".."), { recursive: true });
  writeFileSync(at(path), text);
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "hako-guest-"));
});

afterAll(() => rmSync(directory, { recursive: true }));

describe("readGuestDetails()", () => {
  test("reads what it is asked for; the block size is hexadecimal", () => {
    put("memory/block_size_bytes", "8000000\n");
    put("memory/probe", "");
    const both = readGuestDetails({ memBlockSize: true, memHotplugProbe: true }, at("memory"));
    expect(both).toMatchObject({ memBlockSizeBytes: 0x8000000n, supportMemHotplugProbe: true });
    const none = readGuestDetails({ memBlockSize: false, memHotplugProbe: false }, at("memory"));
    expect(none).toMatchObject({ memBlockSizeBytes: 0n, supportMemHotplugProbe: false });
    expect(none.agentDetails?.storageHandlers).toEqual(
      expect.arrayContaining(["blk", "mmioblk", "overlayfs", "ephemeral", "local", "bind", "virtio-fs"]),
    );
  });

  test("a kernel without memory hotplug has no block size, nonsense is an error", () => {
    const request = { memBlockSize: true, memHotplugProbe: true };
    expect(readGuestDetails(request, at("none"))).toMatchObject({
      memBlockSizeBytes: 0n,
      supportMemHotplugProbe: false,
    });
    put("odd/block_size_bytes", "many\n");
    expect(() => readGuestDetails(request, at("odd"))).toThrow('"many" is no number');
  });
});

describe("bringing online", () => {
  test("as many processors as asked for, all memory", async () => {
    for (const name of ["cpu0", "cpu1", "cpu2", "cpu3"])
      mkdirSync(at(`system/cpu/${name}`), { recursive: true });
    for (const name of ["cpu1", "cpu2", "cpu3"]) put(`system/cpu/${name}/online`, "0");
    put("system/cpu/cpufreq/online", "0");
    for (const name of ["memory1", "memory2"]) put(`system/memory/${name}/online`, "0");
    await onlineCpus(2, false, undefined, at("system"));
    onlineMemory(at("system"));
    const read = (path: string) => readFileSync(at(`system/${path}/online`), "utf8");
    expect(["cpu/cpu1", "cpu/cpu2", "cpu/cpu3", "cpu/cpufreq"].map(read)).toEqual(["1", "1", "0", "0"]);
    expect(["memory/memory1", "memory/memory2"].map(read)).toEqual(["1", "1"]);
  });

  test("waits for processors that are still to come, until it is cancelled", async () => {
    mkdirSync(at("slow/cpu"), { recursive: true });
    const waiting = onlineCpus(1, true, undefined, at("slow"));
    put("slow/cpu/cpu1/online", "0");
    await waiting;
    expect(readFileSync(at("slow/cpu/cpu1/online"), "utf8")).toBe("1");
    await expect(onlineCpus(1, true, AbortSignal.abort(), at("slow"))).rejects.toThrow("Cancelled");
  });
});

describe("setGuestDns()", () => {
  test("writes where the guest image's link leads", () => {
    symlinkSync("run-resolv.conf", at("resolv.conf"));
    setGuestDns(["nameserver 192.0.2.1 ", "search x"], at("run"), at("resolv.conf"));
    expect(readFileSync(at("run-resolv.conf"), "utf8")).toBe("nameserver 192.0.2.1\nsearch x\n");
  });

  test("a guest without the file needs none; no lines change nothing", () => {
    setGuestDns(["nameserver 192.0.2.1"], at("run"), at("absent"));
    setGuestDns([], at("run"), at("absent"));
    expect(existsSync(at("absent"))).toBe(false);
  });

  test("lines that are several, too long or too many are refused", () => {
    for (const lines of [["a\nb"], ["x".repeat(2000)], new Array<string>(65).fill("a")]) {
      expect(() => setGuestDns(lines, at("run"), at("absent"))).toThrow("at most 64 single lines");
    }
  });
});

test("findSerialPort() looks the name of a port up", () => {
  put("class/virtio-ports/vport1p1/name", "other\n");
  put("class/virtio-ports/vport1p2/name", "hako.agent\n");
  mkdirSync(at("class/virtio-ports/vport1p3"));
  expect(findSerialPort("hako.agent", directory)).toBe("/dev/vport1p2");
  expect(findSerialPort("hako", directory)).toBeUndefined();
  expect(findSerialPort("hako.agent", at("none"))).toBeUndefined();
});
