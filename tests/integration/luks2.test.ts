/** LUKS2 volumes of the data hub, and those of cryptsetup, on files: each opens what the other has made. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mergeKey, splitKey } from "#cdh/own/luks2/anti-forensic.ts";
import { cryptTarget, formatVolume, openVolume } from "#cdh/own/luks2/volume.ts";
import { xts } from "#cdh/own/luks2/xts.ts";
import { mountProtected } from "#cdh/own/secure-mount.ts";
import { failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

const base = mkdtempSync(join(tmpdir(), "hako-luks-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));
const peerTest = testIf(Bun.which("cryptsetup") !== null, "needs cryptsetup (Debian package cryptsetup-bin)");

const passphrase = Buffer.from("a key of the key broker");
const keyFile = join(base, "key");
const ours = join(base, "ours.img");
let volumeKey = "";

function makeFile(name: string): string {
  const path = join(base, name);
  writeFileSync(path, "");
  truncateSync(path, 20 << 20);
  return path;
}

function cryptsetup(...words: string[]): { code: number; output: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["cryptsetup", "--batch-mode", ...words], {
    stdin: "ignore",
  });
  return { code: exitCode, output: stdout.toString() + stderr.toString() };
}

beforeAll(() => {
  writeFileSync(keyFile, passphrase);
  makeFile("ours.img");
  volumeKey = formatVolume(ours, passphrase).key.toString("hex");
});

describe("what we make", () => {
  test("we open again, with the right key only", () => {
    const volume = openVolume(ours, passphrase);
    expect(volume.key.toString("hex")).toBe(volumeKey);
    expect(volume).toMatchObject({ encryption: "aes-xts-plain64", offset: 16 << 20, sectorSize: 512 });
    expect(() => openVolume(ours, Buffer.from("another"))).toThrow("no key slot takes the key");
  });

  peerTest("cryptsetup opens", () => {
    expect(cryptsetup("luksDump", ours).output).toContain("Key:        512 bits");
    expect(cryptsetup("open", "--test-passphrase", "--key-file", keyFile, ours)).toEqual({
      code: 0,
      output: "",
    });
    const other = join(base, "other-key");
    writeFileSync(other, "another");
    expect(cryptsetup("open", "--test-passphrase", "--key-file", other, ours).code).not.toBe(0);
    const dumped = cryptsetup("luksDump", "--dump-volume-key", "--key-file", keyFile, ours).output;
    const hex = /MK dump:([\s0-9a-f]+)/.exec(dumped)?.[1]?.replace(/\s+/g, "");
    expect(hex).toBe(volumeKey);
  });
});

describe("what cryptsetup makes, we open", () => {
  const kinds: [name: string, words: string[]][] = [
    ["PBKDF2", ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]],
    [
      "Argon2id",
      [
        "--pbkdf",
        "argon2id",
        "--pbkdf-memory",
        "8192",
        "--pbkdf-force-iterations",
        "4",
        "--pbkdf-parallel",
        "1",
      ],
    ],
    [
      "sectors of 4096 bytes",
      ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--sector-size", "4096"],
    ],
  ];
  for (const [name, words] of kinds) {
    peerTest(name, () => {
      const path = makeFile(`${name}.img`);
      const made = cryptsetup("luksFormat", "--type", "luks2", ...words, path, keyFile);
      expect(made).toEqual({ code: 0, output: "" });
      const dumped = cryptsetup("luksDump", "--dump-volume-key", "--key-file", keyFile, path).output;
      const hex = /MK dump:([\s0-9a-f]+)/.exec(dumped)?.[1]?.replace(/\s+/g, "");
      const volume = openVolume(path, passphrase);
      expect(volume.key.toString("hex")).toBe(hex ?? "");
      expect(cryptTarget("/dev/x", 20n << 20n, volume).parameters).toContain(`${hex} 0 /dev/x 32768`);
    });
  }

  peerTest("but not with integrity or another cipher", () => {
    const path = makeFile("cipher.img");
    const words = [
      "--pbkdf",
      "pbkdf2",
      "--pbkdf-force-iterations",
      "1000",
      "--cipher",
      "aes-cbc-essiv:sha256",
    ];
    expect(cryptsetup("luksFormat", "--type", "luks2", ...words, path, keyFile).code).toBe(0);
    expect(() => openVolume(path, passphrase)).toThrow("is not there");
  });
});

describe("what is damaged is refused", () => {
  const damages: [name: string, offset: number, bytes: string, message: string][] = [
    ["magic", 0, "X", "no LUKS2 header"],
    ["version", 6, "\x00\x01", "no LUKS2 header"],
    ["size of the header", 8, "\xff\xff\xff\xff", "impossible size"],
    ["metadata", 4096 + 30, "x", "its header is damaged"],
    ["checksum", 448, "x", "its header is damaged"],
  ];
  for (const [name, offset, bytes, message] of damages) {
    test(name, () => {
      const path = join(base, "damaged.img");
      copyFileSync(ours, path);
      const fd = openSync(path, "r+");
      writeSync(fd, Buffer.from(bytes, "latin1"), 0, bytes.length, offset);
      closeSync(fd);
      expect(() => openVolume(path, passphrase)).toThrow(message);
    });
  }

  test("a key slot that has changed opens nothing", () => {
    const path = join(base, "slot.img");
    copyFileSync(ours, path);
    const fd = openSync(path, "r+");
    writeSync(fd, Buffer.from("x"), 0, 1, 32_768 + 1000);
    closeSync(fd);
    expect(() => openVolume(path, passphrase)).toThrow("no key slot takes the key");
  });

  test("a file that is too small", () => {
    const path = join(base, "small.img");
    writeFileSync(path, readFileSync(ours).subarray(0, 5000));
    expect(() => openVolume(path, passphrase)).toThrow("too small");
  });
});

test("what is encrypted by AES-XTS comes back, and sectors differ", () => {
  const key = Buffer.concat([Buffer.alloc(32, 0x11), Buffer.alloc(32, 0x22)]);
  const data = crypto.getRandomValues(new Uint8Array(1024));
  const encrypted = xts("encrypt", key, data);
  expect(encrypted.subarray(0, 512)).not.toEqual(encrypted.subarray(512));
  expect(Buffer.compare(xts("decrypt", key, encrypted), Buffer.from(data))).toBe(0);
});

test("a key that is split comes back from all of its stripes only", () => {
  const key = crypto.getRandomValues(new Uint8Array(64));
  const material = splitKey(key, 50);
  expect(Buffer.compare(mergeKey(material, 64, 50), Buffer.from(key))).toBe(0);
  material[100] = (material[100] ?? 0) ^ 1;
  expect(Buffer.compare(mergeKey(material, 64, 50), Buffer.from(key))).not.toBe(0);
});

describe("a protected volume is refused", () => {
  const good = {
    devicePath: ours,
    sourceType: "encrypted",
    targetType: "fileSystem",
    encryptionType: "luks2",
    key: "kbs:///a/b/c",
  };
  const refused: [name: string, options: Record<string, string>, code: string, message: string][] = [
    ["ZFS", { ...good, encryptionType: "zfs" }, "UNIMPLEMENTED", '"zfs" as encryptionType'],
    ["integrity", { ...good, dataIntegrity: "true" }, "UNIMPLEMENTED", "dataIntegrity"],
    ["another file system", { ...good, filesystemType: "xfs" }, "INVALID_ARGUMENT", '"xfs"'],
    ["an odd source", { ...good, sourceType: "x" }, "INVALID_ARGUMENT", "sourceType"],
    [
      "a key of the wrong size",
      { ...good, encryptionType: "plain" },
      "INVALID_ARGUMENT",
      "for plain encryption",
    ],
    ["the wrong key", good, "PERMISSION_DENIED", "no key slot takes the key"],
  ];
  for (const [name, options, code, message] of refused) {
    test(name, async () => {
      const mount = { volumeType: "block-device", options, flags: [], mountPoint: join(base, "mount") };
      const result = await failure(mountProtected(mount, async () => Buffer.from("wrong")));
      expect(result.code).toBe(code);
      expect(result.message).toContain(message);
    });
  }

  test("without a key for what is encrypted", async () => {
    const { key: _, ...options } = good;
    const mount = { volumeType: "block-device", options, flags: [], mountPoint: join(base, "mount") };
    expect((await failure(mountProtected(mount, async () => Buffer.from("")))).message).toContain(
      'it has no "key"',
    );
  });

  test("a device that is named by nothing", async () => {
    const { devicePath: _, ...options } = good;
    const find = (deviceId: Record<string, string>) =>
      failure(
        mountProtected(
          { volumeType: "block-device", options: { ...options, ...deviceId }, flags: [], mountPoint: "/m" },
          async () => Buffer.from(""),
        ),
      );
    expect((await find({})).code).toBe("INVALID_ARGUMENT");
    expect((await find({ deviceId: "4095:4095" })).code).toBe("NOT_FOUND");
  });
});
