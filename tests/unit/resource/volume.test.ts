import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Mount } from "#oci/runtime-spec.ts";
import { directVolume } from "#resource/volume/direct.ts";
import { prepareIdentityFiles } from "#resource/volume/file.ts";
import type { GuestWriter } from "#resource/volume/guest-copy.ts";
import { mountOf, prepareVolume } from "#resource/volume/prepare-volume.ts";
import type { VolumePlace } from "#resource/volume/volume.ts";
import { O } from "#sys/fd.ts";
import { SYS, syscall } from "#sys/syscall.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "hako-volume-"));
  mkdirSync(join(dir, "tree/sub"), { recursive: true });
  writeFileSync(join(dir, "tree/sub/file"), "content");
  writeFileSync(join(dir, "file"), "text");
});
afterAll(() => rmSync(dir, { recursive: true }));

const ID = "c".repeat(64);
const SHARED = "/run/kata-containers/shared/containers";

function place(changes: Partial<VolumePlace> = {}): VolumePlace {
  return {
    containerId: ID,
    index: 7,
    stateDir: join(dir, "state"),
    sharedShm: false,
    hugepageLimits: [],
    emptyDirMode: "shared-fs",
    share: "virtio-fs is needed",
    ...changes,
  };
}

const bind = (source: string, ...options: string[]): Mount => ({
  destination: "/data",
  type: "bind",
  source,
  options: ["rbind", ...options],
});
const prepare = (hostPath: string, readOnly: boolean) =>
  prepareVolume(mountOf({ hostPath: join(dir, hostPath), guestPath: "/data", readOnly }), place());

/** What a volume writes to the guest: path and content. */
async function written(copy: { copyTo(writer: GuestWriter): Promise<void> } | undefined) {
  const files: string[] = [];
  await copy?.copyTo({
    async writeFile(hostPath, guestPath) {
      files.push(`${guestPath} < ${hostPath}`);
    },
    async writeText(text, guestPath) {
      files.push(`${guestPath} = ${text}`);
    },
    async writeDirectory(guestPath) {
      files.push(`${guestPath}/`);
    },
    async writeLink(target, guestPath) {
      files.push(`${guestPath} -> ${target}`);
    },
  });
  return files;
}

describe("prepareVolume()", () => {
  test("a file is copied to a place of its own and mounted from there", async () => {
    using volume = await prepare("file", false);
    const guestPath = `${SHARED}/${ID}-volume-7`;
    expect(await written(volume.copy)).toEqual([`${guestPath} < ${join(dir, "file")}`]);
    expect(volume.mount).toEqual({
      destination: "/data",
      type: "bind",
      source: guestPath,
      options: ["rbind", "rprivate", "rw"],
    });
    using readOnly = await prepare("file", true);
    expect(readOnly.mount?.options).toContain("ro");
  });

  test("a directory becomes a disk without a name that can only be read", async () => {
    using volume = await prepare("tree", true);
    const fd = volume.disk?.fd ?? -1;
    expect(volume.disk?.serial).toBe(`vol7-${ID.slice(0, 12)}`);
    expect(syscall(SYS.fcntl, fd, 3, 0) & 3).toBe(O.RDONLY);
    const magic = Buffer.alloc(4);
    readSync(fd, magic, 0, 4, 1024);
    expect(magic.readUInt32LE()).toBe(0xe0f5e1e2); // EROFS_SUPER_MAGIC_V1
    expect(volume.storage).toMatchObject({ driver: "blk", fstype: "erofs", options: ["ro", "nodev"] });
    expect(volume.mount?.source).toBe(volume.storage?.mountPoint ?? "");
    expect(readdirSync(join(dir, "state/volume"))).toEqual([]);
  });

  test("options of the mount that mean the same in the guest are kept", async () => {
    using volume = await prepareVolume(
      bind(join(dir, "file"), "ro", "nosuid", "noexec", "relatime", "rshared"),
      place(),
    );
    expect(volume.mount?.options).toEqual(["rbind", "rprivate", "ro", "nosuid", "noexec"]);
  });

  test("says what cannot be done and what can", async () => {
    await expect(prepare("tree", false)).rejects.toThrow(
      `for writing: virtio-fs is needed; it can be given read-only, "${join(dir, "tree")}:/data:ro"`,
    );
    await expect(prepare("nothing", true)).rejects.toThrow("it does not exist");
    await expect(prepare("file/below", true)).rejects.toThrow("it does not exist");
    const fifo = join(dir, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    await expect(prepare("fifo", true)).rejects.toThrow("neither a file, a directory nor a block device");
  });

  test("what is not the host's stays as it is", async () => {
    const mount = { destination: "/proc", type: "proc", source: "proc", options: ["nosuid"] };
    using volume = await prepareVolume(mount, place());
    expect(volume).toMatchObject({ mount });
    expect(volume.storage).toBeUndefined();
  });

  test("/dev/shm is the sandbox's, or one of the container's own", async () => {
    const shm = { ...bind("/run/k3s/shm", "nosuid"), destination: "/dev/shm" };
    using own = await prepareVolume(shm, place());
    expect(own.mount).toMatchObject({ type: "tmpfs", options: ["nosuid", "mode=1777", "size=65536k"] });
    using shared = await prepareVolume(shm, place({ sharedShm: true }));
    expect(shared.mount).toMatchObject({ type: "bind", source: "/run/kata-containers/sandbox/shm" });
  });

  test("an emptyDir is a directory of the guest that has the host's mode and group", async () => {
    const path = join(dir, "pods/p1/volumes/kubernetes.io~empty-dir/scratch");
    mkdirSync(path, { recursive: true });
    chmodSync(path, 0o770);
    using volume = await prepareVolume(bind(path), place());
    const mountPoint = "/run/kata-containers/sandbox/local/scratch";
    expect(volume.storage).toMatchObject({ driver: "local", options: ["mode=0770"], mountPoint });
    expect(volume.mount?.source).toBe(mountPoint);
    const onDisk = prepareVolume(bind(path), place({ emptyDirMode: "block-encrypted" }));
    await expect(onDisk).rejects.toMatchObject({ code: "UNIMPLEMENTED" });
  });

  test("huge pages take the container's limit for their size", async () => {
    const mount = { destination: "/huge", type: "hugetlbfs", source: "nodev", options: ["pagesize=2M"] };
    const hugepageLimits = [
      { pageSize: "1GB", limit: 1 << 30 },
      { pageSize: "2MB", limit: 8 << 20 },
    ];
    using volume = await prepareVolume(mount, place({ hugepageLimits }));
    expect(volume.storage).toMatchObject({
      driver: "ephemeral",
      fstype: "hugetlbfs",
      options: ["pagesize=2097152", "size=8388608"],
    });
    await expect(prepareVolume(mount, place())).rejects.toThrow("the container has no limit for them");
  });
});

describe("direct volumes", () => {
  const source = "/var/lib/kubelet/pods/p1/volumes/kubernetes.io~csi/pvc-1/mount?>";
  const handler = () => directVolume(join(dir, "direct"));

  function announce(info: unknown): void {
    // base64 with "-" and "_", as Go's URLEncoding writes it
    const name = "L3Zhci9saWIva3ViZWxldC9wb2RzL3AxL3ZvbHVtZXMva3ViZXJuZXRlcy5pb35jc2kvcHZjLTEvbW91bnQ_Pg==";
    mkdirSync(join(dir, "direct", name), { recursive: true });
    writeFileSync(
      join(dir, "direct", name, "mountInfo.json"),
      typeof info === "string" ? info : JSON.stringify(info),
    );
  }

  test("a disk image is mounted by the guest as its mountInfo.json says", async () => {
    expect(handler().matches(bind(source), place())).toBe(false);
    const device = join(dir, "disk.img");
    writeFileSync(device, "disk");
    announce({
      "volume-type": "directvol",
      device,
      fstype: "ext4",
      metadata: { fsGroup: "1000", fsGroupChangePolicy: "OnRootMismatch" },
      options: ["rw", "noatime"],
    });
    expect(handler().matches(bind(source), place())).toBe(true);
    using volume = await handler().prepare(bind(source), place());
    expect(volume.disk).toMatchObject({ serial: `vol7-${ID.slice(0, 12)}`, readOnly: false });
    expect(volume.storage).toEqual({
      driver: "blk",
      source: `/dev/disk/by-id/virtio-vol7-${ID.slice(0, 12)}`,
      fstype: "ext4",
      options: ["noatime"],
      mountPoint: `/run/kata-containers/${ID}/volume-7`,
      fsGroup: { groupId: 1000, always: false },
    });
    using readOnly = await handler().prepare(bind(source, "ro"), place());
    expect(readOnly.disk?.readOnly).toBe(true);
    expect(readOnly.storage?.options).toEqual(["noatime", "ro"]);
  });

  test.each([
    ["{", "it is not JSON"],
    [[], "it is no object"],
    [{ "volume-type": "directvol", fstype: "ext4" }, '"device" must be a string'],
    [
      { "volume-type": "directvol", device: "/x", fstype: "ext4", options: [1] },
      '"options" must be a list of strings',
    ],
    [
      { "volume-type": "directvol", device: "/x", fstype: "ext4", metadata: { fsGroup: "wheel" } },
      '"metadata.fsGroup"',
    ],
    [{ "volume-type": "spdkvol", device: "/x", fstype: "ext4" }, 'its type is "spdkvol"'],
    [
      { "volume-type": "directvol", device: "/no/such", fstype: "ext4" },
      '"/no/such" as a disk: it does not exist',
    ],
    [
      { "volume-type": "directvol", device: "/dev/null", fstype: "ext4" },
      "it is neither a block device nor a file",
    ],
  ])("what is wrong with one is told: %j", async (info, message) => {
    announce(info);
    await expect(handler().prepare(bind(source), place())).rejects.toThrow(message);
  });
});

describe("prepareIdentityFiles()", () => {
  test("gives a container its name", async () => {
    const volumes = prepareIdentityFiles(ID, "box");
    expect(volumes.map(({ mount }) => mount?.destination)).toEqual(["/etc/hosts", "/etc/hostname"]);
    const files = await Promise.all(volumes.map(({ copy }) => written(copy)));
    expect(files.flat()).toEqual([
      `${SHARED}/${ID}-hosts = 127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n`,
      `${SHARED}/${ID}-hostname = box\n`,
    ]);
  });
});
