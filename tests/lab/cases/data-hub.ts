/** Protected volumes of the data hub on a kernel that has the device mapper. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openOwnHub } from "#cdh/own/open.ts";
import { blockDeviceSize } from "#linux/device-mapper.ts";
import { LoopDevice } from "#linux/loop-device.ts";
import { findMount } from "#linux/mount.ts";
import { makeHubDirectory, type Seal, vault } from "../../support/sealed-secret.ts";

const SIZE = 32 << 20;
const base = mkdtempSync(join(tmpdir(), "hako-hub-"));
const mountPoint = join(base, "mount");
const text = "what nobody outside may read ".repeat(1000);
let configFile: string;
let seal: Seal;

beforeAll(async () => {
  for (const module of ["dm_crypt", "loop", "xts", "aesni_intel"]) Bun.spawnSync(["modprobe", "-q", module]);
  ({ configFile, seal } = await makeHubDirectory(base));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** A disk, and the file behind it. */
function makeDisk(name: string): { path: string; device: LoopDevice } {
  const path = join(base, name);
  writeFileSync(path, "");
  truncateSync(path, SIZE);
  return { path, device: LoopDevice.attach(openSync(path, "r+"), { readOnly: false }) };
}

const volume = (device: LoopDevice, options: Record<string, string>) => ({
  volumeType: "block-device",
  options: { devicePath: device.path, targetType: "fileSystem", filesystemType: "ext4", ...options },
  flags: ["noatime", "nodev"],
  mountPoint,
});

for (const [encryptionType, resource] of [
  ["luks2", "default/key/kek"],
  ["plain", "default/key/volume"],
] as const) {
  test(`a volume encrypted by ${encryptionType} is made, closed, and opened again by its sealed key`, async () => {
    const { path, device } = makeDisk(`${encryptionType}.img`);
    using _ = device;
    const key = await seal(vault(`kbs:///${resource}`));
    {
      await using hub = await openOwnHub(configFile, { timeoutMs: 30_000 });
      await hub.secureMount(volume(device, { encryptionType, sourceType: "empty", key }));
      expect(findMount(mountPoint)).toMatchObject({ fstype: "ext4" });
      writeFileSync(join(mountPoint, "secret"), text);
    }
    expect(findMount(mountPoint)).toBeUndefined();
    expect(readFileSync(path).includes(text.slice(0, 28))).toBe(false);
    {
      await using hub = await openOwnHub(configFile, { timeoutMs: 30_000 });
      await hub.secureMount(volume(device, { encryptionType, sourceType: "encrypted", key }));
      expect(readFileSync(join(mountPoint, "secret"), "utf8")).toBe(text);
    }
  }, 85_000);
}

test("a device as the target, with a key that nobody keeps", async () => {
  const { device } = makeDisk("device.img");
  using _ = device;
  const link = join(base, "protected");
  {
    await using hub = await openOwnHub(configFile, { timeoutMs: 30_000 });
    const request = volume(device, { encryptionType: "luks2", sourceType: "empty", targetType: "device" });
    await hub.secureMount({ ...request, mountPoint: link });
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(blockDeviceSize(readlinkSync(link))).toBe(BigInt(SIZE - (16 << 20)));
  }
  expect(existsSync(link)).toBe(false);
});

test("a mount that fails leaves no mapping behind", async () => {
  const { device } = makeDisk("fails.img");
  using _ = device;
  await using hub = await openOwnHub(configFile, { timeoutMs: 30_000 });
  const key = await seal(vault("kbs:///default/key/volume"));
  // Nothing has made a file system there.
  const request = volume(device, {
    encryptionType: "plain",
    sourceType: "encrypted",
    key,
    mapperName: "fails",
  });
  await expect(hub.secureMount(request)).rejects.toThrow("Cannot mount a protected volume");
  expect(existsSync("/sys/block/dm-0")).toBe(false);
});
