import { expect } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { imageGuestPullHandler } from "#agent/storage/image-guest-pull.ts";
import { HakoError } from "#base/error.ts";
import { AbsentHub } from "#cdh/absent-hub.ts";
import type { DataHub, ImagePull } from "#cdh/hub.ts";
import { replaceDataHub } from "#cdh/process-hub.ts";
import { Storage } from "#proto/agent.ts";
import { TemporaryDirectory } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const rootTest = testIf(process.getuid?.() === 0, "needs root");

/** A hub that pulls: it makes a bundle of one file that holds the image's name. */
function pullingHub(pulled: ImagePull[]): DataHub {
  const { unsealSecret, getResource, secureMount, wrapKey, unwrapKey } = new AbsentHub(
    "it only pulls images",
  );
  return {
    unsealSecret,
    getResource,
    secureMount,
    wrapKey,
    unwrapKey,
    place: "in this test",
    isAvailable: () => true,
    async pullImage(request) {
      pulled.push(request);
      if (request.imageUrl === "forbidden")
        throw new HakoError("PERMISSION_DENIED", "Cannot pull the image: policy");
      mkdirSync(join(request.bundlePath, "rootfs"));
      writeFileSync(join(request.bundlePath, "rootfs/name"), request.imageUrl);
      return { manifestDigest: "" };
    },
    async [Symbol.asyncDispose]() {},
  };
}

rootTest("an image that the hub pulls becomes the root, and goes with its storage", async () => {
  using directory = new TemporaryDirectory();
  const pulled: ImagePull[] = [];
  using _ = replaceDataHub(pullingHub(pulled));
  const runDirectory = directory.path;
  const mountPoint = join(runDirectory, "c1/rootfs");
  const devices = { timeoutMs: 0, sysfs: "/sys", dev: "/dev" };
  const context = { runDirectory, devices, containerId: "c1", signal: undefined, parts: [] };
  const storage = (source: string) => Storage.fromPartial({ driver: "image_guest_pull", source, mountPoint });

  const attached = await imageGuestPullHandler.attach(storage("registry.test/image:1"), context);
  expect(readFileSync(join(mountPoint, "name"), "utf8")).toBe("registry.test/image:1");
  expect(pulled).toEqual([{ imageUrl: "registry.test/image:1", bundlePath: join(runDirectory, "image/c1") }]);
  await attached.detach();
  expect([existsSync(mountPoint), existsSync(join(runDirectory, "image/c1"))]).toEqual([false, false]);

  await expect(imageGuestPullHandler.attach(storage("forbidden"), context)).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
  });
  expect(existsSync(join(runDirectory, "image/c1"))).toBe(false);
});
