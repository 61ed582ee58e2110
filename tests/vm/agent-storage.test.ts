/** Storages that need the guest's kernel: disks under a root hash, encrypted scratch space, layers of both kinds. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BlockSpec } from "#hypervisor/hypervisor.ts";
import type { DeepPartial, Storage } from "#proto/agent.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { AgentMachine, agentMachineMissing } from "../support/agent-machine.ts";
import { failure } from "../support/agent-process.ts";
import { erofsToolsMissing, runTool } from "../support/erofs-tools.ts";
import { testIf } from "../support/skip.ts";
import { makeVerityImage, type VerityImage } from "../support/verity-tree.ts";

const missing = agentMachineMissing() ?? erofsToolsMissing();
const vmTest = testIf(missing === undefined, missing ?? "");
const TIMEOUT = 180_000;
const MIB = 1 << 20;
const BASE = "/run/kata-containers";
const SALT = Buffer.from("00112233445566778899aabbccddeeff", "hex");
const SECRET = "a word that must not be on the disk";

let box: AgentMachine;
let directory: string;
let verity: VerityImage;
const opened: Fd[] = [];

const path = (name: string) => join(directory, name);

function disk(serial: string, readOnly: boolean): BlockSpec {
  const fd = openFd(path(serial), readOnly ? O.RDONLY : O.RDWR);
  opened.push(fd);
  return { kind: "block", id: serial, serial, fd: fd.number, readOnly };
}

beforeAll(async () => {
  if (missing !== undefined) return;
  directory = mkdtempSync(join(tmpdir(), "hako-disks-"));
  runTool("mkdir", path("tree"));
  writeFileSync(path("tree/file"), "checked\n".padEnd(40_000, "x"));
  runTool("mkfs.erofs", "--quiet", path("plain"), path("tree"));
  verity = makeVerityImage(readFileSync(path("plain")), SALT);
  writeFileSync(path("checked"), verity.bytes);
  // One bit of the file's content is another.
  const tampered = Buffer.from(verity.bytes);
  const at = tampered.indexOf("checked");
  tampered[at + 8192] = (tampered[at + 8192] ?? 0) ^ 1;
  writeFileSync(path("tampered"), tampered);
  for (const name of ["scratch", "upper"]) {
    writeFileSync(path(name), "");
    truncateSync(path(name), 64 * MIB);
  }
  runTool("mke2fs", "-q", "-t", "ext4", path("upper"));
  const devices = [
    disk("checked", true),
    disk("tampered", true),
    disk("scratch", false),
    disk("upper", false),
  ];
  box = await AgentMachine.boot({ devices });
  await box.agent.createSandbox({ hostname: "guest", sandboxId: "s" });
}, TIMEOUT);

afterAll(async () => {
  await box?.[Symbol.asyncDispose]();
  for (const fd of opened) fd.close();
  if (directory) rmSync(directory, { recursive: true, force: true });
}, TIMEOUT);

const source = (serial: string) => `/dev/disk/by-id/virtio-${serial}`;
const verityOptions = (rootHash: string) => [
  "X-kata.dmverity-enabled=true",
  `X-kata.dmverity.roothash=${rootHash}`,
  `X-kata.dmverity.hashoffset=${verity.hashOffset}`,
  "X-kata.dmverity.no-superblock=true",
  `X-kata.dmverity.salt=${SALT.toString("hex")}`,
];

/** Runs a script that sees a storage at /data. */
async function runWith(storages: readonly DeepPartial<Storage>[], script: string) {
  const [first] = storages;
  const mount = {
    destination: "/data",
    type: "bind",
    source: first?.mountPoint ?? "",
    options: ["rbind", "rw"],
  };
  const containerId = await box.run(script, { mounts: [mount] }, ({ request }) => {
    request.storages = [...(request.storages ?? []), ...storages];
  });
  const output = await box.collect(containerId);
  await box.agent.removeContainer({ containerId });
  return output;
}

describe("a disk under a root hash", () => {
  const storage = (serial: string, rootHash: string): DeepPartial<Storage> => ({
    driver: "blk",
    source: source(serial),
    fstype: "erofs",
    mountPoint: `${BASE}/volume/${serial}`,
    options: ["ro", ...verityOptions(rootHash)],
  });

  vmTest(
    "is read as it is, and a changed bit is an error",
    async () => {
      const good = await runWith(
        [storage("checked", verity.rootHash)],
        "head -c 7 /data/file; wc -c < /data/file",
      );
      expect(good).toEqual({ stdout: "checked40000\n", code: 0 });
      const bad = await runWith(
        [storage("tampered", verity.rootHash)],
        "cat /data/file > /dev/null 2>&1 || echo refused",
      );
      expect(bad.stdout).toBe("refused\n");
    },
    TIMEOUT,
  );

  vmTest(
    "is not mounted under another hash, and not without one",
    async () => {
      const wrong = "00".repeat(32);
      for (const rootHash of [wrong, ""]) {
        const refused = await failure(runWith([storage("checked", rootHash)], "true"));
        expect(["INVALID_ARGUMENT", "FAILED_PRECONDITION", "DATA_LOSS"]).toContain(refused.code);
      }
      // Nothing of it is left: the same disk can be had.
      expect((await runWith([storage("checked", verity.rootHash)], "true")).code).toBe(0);
    },
    TIMEOUT,
  );
});

describe("encrypted scratch space", () => {
  vmTest(
    "is a file system, and on the disk a LUKS2 volume that says nothing",
    async () => {
      const storage = {
        driver: "blk",
        source: source("scratch"),
        mountPoint: `${BASE}/volume/scratch`,
        driverOptions: ["encryption_key=ephemeral", "create_filesystem"],
      };
      const script = `echo "${SECRET}" > /data/file && sync && cat /data/file && df -m /data | awk 'END { print ($2 > 40) }'`;
      expect(await runWith([storage], script)).toEqual({ stdout: `${SECRET}\n1\n`, code: 0 });
      const bytes = readFileSync(path("scratch"));
      expect(bytes.toString("latin1", 0, 6)).toBe("LUKS\xba\xbe");
      expect(bytes.readUInt16BE(6)).toBe(2);
      expect(bytes.includes(SECRET)).toBe(false);
      // Something was written, and it is no ext4.
      expect(bytes.subarray(16 * MIB).some((byte) => byte !== 0)).toBe(true);
      expect(bytes.readUInt16LE(16 * MIB + 1024 + 0x38)).not.toBe(0xef53);
      // A second use makes it anew, with another key.
      expect((await runWith([storage], "ls /data | wc -l")).stdout).toBe("0\n");
    },
    TIMEOUT,
  );
});

describe("layers", () => {
  vmTest(
    "of which the lower one is checked",
    async () => {
      const mountPoint = `${BASE}/volume/layered`;
      const mark = "X-kata.multi-layer=true";
      const storages = [
        {
          driver: "blk",
          source: source("upper"),
          fstype: "ext4",
          mountPoint,
          options: ["rw", "X-kata.overlay-upper", mark],
        },
        {
          driver: "blk",
          source: source("checked"),
          fstype: "erofs",
          mountPoint,
          options: ["ro", "X-kata.overlay-lower", mark, ...verityOptions(verity.rootHash)],
        },
      ];
      const output = await runWith(storages, "head -c 7 /data/file; echo new > /data/file; cat /data/file");
      expect(output).toEqual({ stdout: "checkednew\n", code: 0 });
    },
    TIMEOUT,
  );
});
