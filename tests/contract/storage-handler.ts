import { describe, expect } from "bun:test";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import type { DeepPartial, Storage } from "#proto/agent.ts";
import { AgentProcess, agentProcessMissing, failure } from "../support/agent-process.ts";
import { testIf } from "../support/skip.ts";

/** A storage handler as the agent offers it, and what this suite has to know of it. */
export interface StorageSubject {
  readonly name: string;
  /** Ends with its container, or stays for the sandbox. */
  readonly lifetime: "container" | "sandbox";
  /** False for a handler that makes a directory and mounts nothing. */
  readonly mounts: boolean;
  /** Why it cannot be tried here; undefined when it can. */
  readonly missing?: string | undefined;
  /** Mounts that it makes besides, elsewhere below the run directory. */
  readonly helpers?: number;
  /**
   * A request that works, for a mount point below the agent's run directory; several that are one storage together.
   * Prepares what it needs.
   */
  storage(box: AgentProcess, mountPoint: string): Request | Promise<Request>;
}

type Request = DeepPartial<Storage> | readonly DeepPartial<Storage>[];

/** What every storage handler has to hold. */
export function storageHandlerContract(subject: StorageSubject): void {
  const missing = agentProcessMissing() ?? subject.missing;
  const agentTest = testIf(missing === undefined, missing ?? "");
  const request = async (box: AgentProcess, place: string) =>
    [await subject.storage(box, place)].flat() as DeepPartial<Storage>[];
  const create = async (box: AgentProcess, storages: readonly DeepPartial<Storage>[]) =>
    await box.create({ command: ["sleep", "1000"] }, ({ request }) => {
      request.storages = [...(request.storages ?? []), ...storages];
    });
  /** A path as the agent sees it. */
  const seen = (box: AgentProcess, path: string) => `/proc/${box.pid}/root${path}`;
  const ownMounts = (box: AgentProcess, path: string) =>
    box.mounts.filter((mount) => mount === path || mount.startsWith(`${path}/`));

  describe(`storage handler ${subject.name}`, () => {
    agentTest("makes its mount point, and takes it away when its time is over", async () => {
      await using box = await AgentProcess.start();
      const place = join(box.runDirectory, "volume/deep/place");
      const before = box.mounts.length;
      const containerId = await create(box, await request(box, place));
      expect(existsSync(seen(box, place))).toBe(true);
      expect(ownMounts(box, place)).toEqual(subject.mounts ? [place] : []);
      // The container's own three, the storage, and what the storage needs besides.
      expect(box.mounts.length - before).toBe(3 + (subject.mounts ? 1 : 0) + (subject.helpers ?? 0));
      await box.agent.removeContainer({ containerId });
      if (subject.lifetime === "container") expect(box.mounts.length).toBe(before);
      const stays = subject.lifetime === "sandbox";
      expect(existsSync(seen(box, place))).toBe(stays);
      expect(ownMounts(box, place)).toEqual(stays && subject.mounts ? [place] : []);
    });

    agentTest("serves several containers at once and goes with the last", async () => {
      await using box = await AgentProcess.start();
      const place = join(box.runDirectory, "volume/shared");
      const storages = await request(box, place);
      const [first, second] = await Promise.all([create(box, storages), create(box, storages)]);
      expect(ownMounts(box, place)).toEqual(subject.mounts ? [place] : []);
      await box.agent.removeContainer({ containerId: first });
      expect(existsSync(seen(box, place))).toBe(true);
      await box.agent.removeContainer({ containerId: second });
      expect(existsSync(seen(box, place))).toBe(subject.lifetime === "sandbox");
    });

    agentTest("is undone when a later storage fails", async () => {
      await using box = await AgentProcess.start();
      const place = join(box.runDirectory, "volume/undone");
      const storages = await request(box, place);
      const broken = {
        driver: "bind",
        source: "/no/such/thing",
        mountPoint: join(box.runDirectory, "volume/x"),
      };
      expect(await failure(create(box, [...storages, broken]))).toMatchObject({
        code: "FAILED_PRECONDITION",
      });
      if (subject.lifetime === "container") expect(existsSync(seen(box, place))).toBe(false);
    });

    agentTest("refuses places outside of the run directory, also by a link", async () => {
      await using box = await AgentProcess.start();
      const storages = await request(box, join(box.runDirectory, "volume/unused"));
      const at = (mountPoint: string) => storages.map((storage) => ({ ...storage, mountPoint }));
      for (const place of [
        "/etc/hako-test",
        `${box.runDirectory}/../hako-test`,
        box.runDirectory,
        "relative",
      ]) {
        const refused = create(box, at(place));
        expect(await failure(refused)).toMatchObject({ code: "INVALID_ARGUMENT" });
      }
      const link = join(box.runDirectory, "volume/link");
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync("/tmp", link);
      const refused = create(box, at(join(link, "hako-test")));
      expect((await failure(refused)).message).toContain("ELOOP");
      expect([existsSync("/etc/hako-test"), existsSync("/tmp/hako-test")]).toEqual([false, false]);
    });
  });
}
