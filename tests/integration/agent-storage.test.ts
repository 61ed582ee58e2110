import { afterAll, describe, expect } from "bun:test";
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DeepPartial, Storage } from "#proto/agent.ts";
import { storageHandlerContract } from "../contract/storage-handler.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { LoopDisks, loopDiskMissing } from "../support/loop-disk.ts";
import { testIf } from "../support/skip.ts";

const missing = agentProcessMissing();
const agentTest = testIf(missing === undefined, missing ?? "");
const noDisks = loopDiskMissing();
const diskTest = testIf(missing === undefined && noDisks === undefined, missing ?? noDisks ?? "");

let disks: LoopDisks | undefined;

/** Made at the first use, when there can be any. */
function theDisks(): LoopDisks {
  disks ??= new LoopDisks();
  return disks;
}

afterAll(() => disks?.[Symbol.dispose]());

/** A directory of the machine below the run directory. */
function directory(box: AgentProcess, name: string): string {
  const path = join(box.runDirectory, "source", name);
  mkdirSync(path, { recursive: true });
  return path;
}

storageHandlerContract({
  name: "bind of a directory",
  lifetime: "container",
  mounts: true,
  storage: (box, mountPoint) => ({
    driver: "bind",
    source: directory(box, "d"),
    mountPoint,
    options: ["ro"],
  }),
});

storageHandlerContract({
  name: "bind of a file",
  lifetime: "container",
  mounts: true,
  storage(box, mountPoint) {
    const source = join(directory(box, "f"), "file");
    writeFileSync(source, "content");
    return { driver: "bind", source, mountPoint, options: ["rbind", "rprivate"] };
  },
});

storageHandlerContract({
  name: "overlayfs",
  lifetime: "container",
  mounts: true,
  storage(box, mountPoint) {
    const [lower, other] = [directory(box, "lower"), directory(box, "other:one")];
    const options = [`lowerdir=${lower}:${other.replace(":", "\\:")}`];
    return { driver: "overlayfs", source: "overlay", fstype: "overlay", mountPoint, options };
  },
});

storageHandlerContract({
  name: "ephemeral",
  lifetime: "sandbox",
  mounts: true,
  storage: (_, mountPoint) => ({
    driver: "ephemeral",
    source: "tmpfs",
    fstype: "tmpfs",
    mountPoint,
    options: ["size=1m"],
  }),
});

storageHandlerContract({
  name: "local",
  lifetime: "sandbox",
  mounts: false,
  storage: (_, mountPoint) => ({ driver: "local", mountPoint, options: ["mode=0700"] }),
});

storageHandlerContract({
  name: "watchable-bind of a directory",
  lifetime: "container",
  mounts: true,
  storage(box, mountPoint) {
    const source = directory(box, "watched");
    writeFileSync(join(source, "key"), "value");
    return { driver: "watchable-bind", source, mountPoint };
  },
});

storageHandlerContract({
  name: "watchable-bind of a file",
  lifetime: "container",
  mounts: true,
  helpers: 1,
  storage(box, mountPoint) {
    const source = join(directory(box, "watched-file"), "key");
    writeFileSync(source, "value");
    return { driver: "watchable-bind", source, mountPoint };
  },
});

storageHandlerContract({
  name: "disk",
  lifetime: "container",
  mounts: true,
  missing: noDisks,
  storage: (_, mountPoint) => ({
    driver: "mmioblk",
    source: theDisks().ext4(8 << 20),
    fstype: "ext4",
    mountPoint,
  }),
});

/** Two read-only layers under a writable one, as Kata's runtime sends them. */
function layers(mountPoint: string): DeepPartial<Storage>[] {
  const layer = (source: string, fstype: string, options: string[]) => ({
    driver: "mmioblk",
    source,
    fstype,
    mountPoint,
    options: [...options, "X-kata.multi-layer=true"],
  });
  return [
    layer(theDisks().ext4(8 << 20), "ext4", [
      "rw",
      "X-kata.overlay-upper",
      "X-kata.mkdir.path={{ mount 0 }}/upper:0755",
    ]),
    layer(theDisks().erofs({ both: "top", top: "top" }), "erofs", ["ro", "X-kata.overlay-lower"]),
    layer(theDisks().erofs({ both: "bottom", bottom: "bottom" }), "erofs", ["ro", "X-kata.overlay-lower"]),
  ];
}

storageHandlerContract({
  name: "multi-layer EROFS",
  lifetime: "container",
  mounts: true,
  helpers: 3,
  missing: noDisks,
  storage: (_, mountPoint) => layers(mountPoint),
});

describe("layered storage", () => {
  const attach = async (box: AgentProcess, storages: DeepPartial<Storage>[]) =>
    await box.create({ command: ["true"] }, ({ request }) => {
      request.storages = [...(request.storages ?? []), ...storages];
    });

  diskTest("shows the topmost layer, keeps what is written, and refuses a heap that is none", async () => {
    await using box = await AgentProcess.start();
    const place = join(box.runDirectory, "volume/layered");
    const all = layers(place);
    const containerId = await attach(box, all);
    const seen = (name: string) => readFileSync(`/proc/${box.pid}/root${place}/${name}`, "utf8");
    expect([seen("both"), seen("top"), seen("bottom")]).toEqual(["top", "top", "bottom"]);
    writeFileSync(`/proc/${box.pid}/root${place}/new`, "written");
    await box.agent.removeContainer({ containerId });
    const again = await attach(box, all);
    expect(seen("new")).toBe("written");
    await box.agent.removeContainer({ containerId: again });

    const [upper = {}, ...lowers] = all;
    const odd: [DeepPartial<Storage>[], string][] = [
      [[upper], "0 read-only layers"],
      [lowers, "0 writable and 2 read-only"],
      [[upper, { ...upper, source: "/dev/loop99" }, ...lowers], "2 writable"],
      [
        [{ ...upper, options: [...(upper.options ?? []), "X-kata.mkdir.path=../../x:0755"] }, ...lowers],
        "directory",
      ],
      [
        [upper, { ...lowers[0], options: [...(lowers[0]?.options ?? []), "X-kata.dmverity-enabled=true"] }],
        "hashoffset",
      ],
    ];
    for (const [storages, message] of odd) {
      const refused = await failure(attach(box, storages));
      expect([refused.code, refused.message.includes(message), refused.message]).toEqual([
        "INVALID_ARGUMENT",
        true,
        refused.message,
      ]);
      expect(box.mounts).toEqual([]);
    }
  });
});

describe("a watched volume", () => {
  /** Kubernetes' layout: files are links through ..data, which is swapped as a whole. */
  function publish(volume: string, version: string, files: Record<string, string>): void {
    mkdirSync(join(volume, version), { recursive: true });
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(volume, version, name), content);
      rmSync(join(volume, name), { force: true });
      symlinkSync(`..data/${name}`, join(volume, name));
    }
    symlinkSync(version, join(volume, "..data_tmp"));
    renameSync(join(volume, "..data_tmp"), join(volume, "..data"));
  }

  agentTest("follows the swap of a link, new and removed files, and a file rewritten in place", async () => {
    await using box = await AgentProcess.start();
    const volume = directory(box, "config");
    publish(volume, "..v1", { a: "one", b: "one" });
    const single = join(directory(box, "single"), "resolv.conf");
    writeFileSync(single, "first");
    const [place, file] = [join(box.runDirectory, "volume/config"), join(box.runDirectory, "volume/file")];
    // The container looks until it has seen both versions of each, and never a mixture.
    const script = [
      "while ! grep -q two /config/a; do cat /config/..data/a /config/..data/b | tr -d '\\n'; echo; sleep 0.05; done | sort -u",
      "while ! grep -q second /single; do sleep 0.05; done",
      "cat /config/a /config/c /single; ls -a /config | tr '\\n' ' '",
    ].join("; ");
    const mounts = [
      { destination: "/config", type: "bind", source: place, options: ["rbind", "ro"] },
      { destination: "/single", type: "bind", source: file, options: ["rbind", "ro"] },
    ];
    const id = await box.create({ command: ["sh", "-c", script], mounts }, ({ request }) => {
      request.storages = [
        ...(request.storages ?? []),
        { driver: "watchable-bind", source: volume, mountPoint: place },
        { driver: "watchable-bind", source: single, mountPoint: file },
      ];
    });
    await box.agent.startContainer({ containerId: id });
    publish(volume, "..v2", { a: "two", c: "two" });
    rmSync(join(volume, "b"));
    rmSync(join(volume, "..v1"), { recursive: true });
    writeFileSync(single, "second");
    const { stdout, stderr, code } = await box.collect(id);
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    expect(stdout).toBe("oneone\ntwotwosecond. .. ..data ..v2 a c ");
    await box.agent.removeContainer({ containerId: id });
  });

  agentTest("that is too large is bound as it is", async () => {
    await using box = await AgentProcess.start();
    const volume = directory(box, "large");
    for (let index = 0; index < 20; index++) writeFileSync(join(volume, `f${index}`), "x");
    const mountPoint = join(box.runDirectory, "volume/large");
    const containerId = await box.create({ command: ["true"] }, ({ request }) => {
      request.storages = [
        ...(request.storages ?? []),
        { driver: "watchable-bind", source: volume, mountPoint },
      ];
    });
    writeFileSync(join(volume, "later"), "at once");
    expect(readFileSync(`/proc/${box.pid}/root${mountPoint}/later`, "utf8")).toBe("at once");
    await box.agent.removeContainer({ containerId });
  });
});

describe("images that the guest pulls", () => {
  agentTest("need somebody who pulls them", async () => {
    await using box = await AgentProcess.start();
    const pull = async (fields: DeepPartial<Storage>) =>
      await failure(
        box.create({}, ({ request }) => {
          request.storages = [
            { driver: "image_guest_pull", mountPoint: join(box.runDirectory, "c9/rootfs"), ...fields },
          ];
        }),
      );
    expect(await pull({ source: "docker.io/library/x:1" })).toMatchObject({ code: "UNAVAILABLE" });
    expect(await pull({ source: "not a reference" })).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await pull({ source: "x", driverOptions: ["image_guest_pull={"] })).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    expect(box.mounts).toEqual([]);
  });
});

describe("scratch disks", () => {
  diskTest("get a file system, and are encrypted where the kernel can", async () => {
    await using box = await AgentProcess.start();
    const mountPoint = join(box.runDirectory, "volume/scratch");
    const attach = async (driverOptions: string[]) =>
      await box.create({ command: ["true"] }, ({ request }) => {
        const storage = { driver: "mmioblk", source: theDisks().blank(64 << 20), mountPoint, driverOptions };
        request.storages = [...(request.storages ?? []), storage];
      });
    const containerId = await attach(["create_filesystem"]);
    const { usage } = await box.agent.getVolumeStats({ volumeGuestPath: mountPoint });
    expect(usage[0]?.total).toBeGreaterThan(60n << 20n);
    writeFileSync(`/proc/${box.pid}/root${mountPoint}/file`, "x");
    await box.agent.removeContainer({ containerId });
    const encrypted = await failure(attach(["encryption_key=ephemeral", "create_filesystem"]));
    // Without a device mapper it must be refused, never left unencrypted.
    if (encrypted.code !== "OK") {
      expect(encrypted).toMatchObject({ code: "FAILED_PRECONDITION" });
      expect(encrypted.message).toContain("no device mapper");
    }
    expect((await failure(attach(["nonsense"]))).code).toBe("UNIMPLEMENTED");
  });
});
