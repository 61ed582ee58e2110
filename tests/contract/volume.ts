import { describe, expect, test } from "bun:test";
import { lstatSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Mount } from "#oci/runtime-spec.ts";
import { prepareVolume, VOLUME_HANDLERS } from "#resource/volume/prepare-volume.ts";
import type { VolumeHandler, VolumePlace } from "#resource/volume/volume.ts";

/** A kind of volume, and what this suite has to know of it. */
export interface VolumeSubject {
  readonly handler: VolumeHandler;
  /** False for one whose place the registry's own object does not know. */
  readonly registered: boolean;
  /** Makes what the mount needs below `directory`; the mount of the container. */
  mount(directory: string): Mount;
  readonly place?: Partial<VolumePlace>;
}

const CONTAINER = "c".repeat(64);

/** Descriptors of this process, but for the one that looks. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)].filter((target) => !target.startsWith("/proc/"));
    } catch {
      return [];
    }
  });
}

/** Names, kinds, sizes and times below a directory. */
function describeHost(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((path) => !path.startsWith("state"))
    .map((path) => {
      const { mode, size, mtimeMs, uid, gid } = lstatSync(join(directory, path));
      return `${path} ${mode} ${size} ${mtimeMs} ${uid} ${gid}`;
    });
}

/** What every handler of volumes has to hold. */
export function volumeContract(subject: VolumeSubject): void {
  const { handler } = subject;

  async function withHost(work: (mount: Mount, place: VolumePlace, directory: string) => Promise<void>) {
    const directory = mkdtempSync(join(tmpdir(), "hako-volume-"));
    const place: VolumePlace = {
      containerId: CONTAINER,
      index: 3,
      stateDir: join(directory, "state"),
      sharedShm: false,
      hugepageLimits: [],
      share: "nothing shares here",
      emptyDirMode: "shared-fs",
      ...subject.place,
    };
    try {
      await work(subject.mount(directory), place, directory);
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  describe(`volume of kind ${handler.name}`, () => {
    test("matches its mounts, and is the first of the registry that does", () =>
      withHost(async (mount, place) => {
        expect(handler.matches(mount, place)).toBe(true);
        const other = { destination: "/proc", type: "proc", source: "proc" };
        expect(handler.matches(other, place)).toBe(false);
        if (!subject.registered) return;
        expect(VOLUME_HANDLERS.find((candidate) => candidate.matches(mount, place))?.name).toBe(handler.name);
        using volume = await prepareVolume(mount, place);
        expect(volume.mount ?? volume.specDevice).toBeDefined();
      }));

    test("appears where the container wants it, from a place of the guest", () =>
      withHost(async (mount, place) => {
        using volume = await handler.prepare(mount, place);
        expect(volume.mount?.destination ?? volume.specDevice?.path).toBe(mount.destination);
        const source = volume.mount?.source ?? "";
        const isGuests =
          volume.mount === undefined || source.startsWith("/run/kata-containers/") || source === "shm";
        expect([source, isGuests]).toEqual([source, true]);
        if (volume.storage && volume.mount) expect(source.startsWith(volume.storage.mountPoint)).toBe(true);
        if (volume.disk) expect(volume.disk.serial.length).toBeLessThanOrEqual(20);
      }));

    test("changes nothing on the host, and leaves no descriptor open", () =>
      withHost(async (mount, place, directory) => {
        const before = { files: describeHost(directory), open: openFiles() };
        {
          using _volume = await handler.prepare(mount, place);
        }
        expect({ files: describeHost(directory), open: openFiles() }).toEqual(before);
      }));

    test("two of a container are apart", () =>
      withHost(async (mount, place) => {
        using first = await handler.prepare(mount, place);
        using second = await handler.prepare(mount, { ...place, index: 4 });
        if (first.disk) expect(second.disk?.serial).not.toBe(first.disk.serial);
        const shared =
          first.storage?.mountPoint.includes("/sandbox/") ?? first.mount?.source?.includes("/sandbox/");
        if (first.copy ?? first.disk) expect(shared).not.toBe(true);
        if (first.copy) expect(second.mount?.source).not.toBe(first.mount?.source ?? "");
      }));
  });
}
