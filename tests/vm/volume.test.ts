/** Volumes of every kind that needs a guest to be seen, all in one container. */
import { afterAll, expect } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { findVirtiofsd } from "#resource/share-fs/virtiofsd.ts";
import { HakoHost, hakoBinary, MACHINE_TIMEOUT_MS, machineTest } from "../support/hako-host.ts";
import { busyboxImage } from "../support/images.ts";
import { loopMountMissing } from "../support/loop-mount.ts";
import { testIf } from "../support/skip.ts";

const missing = loopMountMissing() ?? virtiofsdMissing();

function virtiofsdMissing(): string | undefined {
  try {
    findVirtiofsd("");
    return undefined;
  } catch {
    return "needs virtiofsd (Debian package qemu-system-common)";
  }
}
const test = missing === undefined ? machineTest : testIf(false, missing);

const host = new HakoHost();
afterAll(() => host[Symbol.dispose]());

const volumes = join(host.dir, "pods/p1/volumes");

function run(...words: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(words);
  if (exitCode !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
  return stdout.toString().trim();
}

/** A configMap as the kubelet writes it; each call swaps in another version. */
function writeConfigMap(path: string, version: string): void {
  mkdirSync(join(path, version), { recursive: true });
  writeFileSync(join(path, version, "key"), version);
  symlinkSync(version, join(path, "..data_tmp"));
  renameSync(join(path, "..data_tmp"), join(path, "..data"));
  if (!existsSync(join(path, "key"))) symlinkSync("..data/key", join(path, "key"));
}

/** A disk image with a file system, and in it a file. */
function makeDisk(path: string): void {
  writeFileSync(path, "");
  truncateSync(path, 8 * 1024 * 1024);
  run("mkfs.ext4", "-q", path);
}

/** Tells the runtime that the guest is to mount a disk, as a CSI driver does. */
function announceDirectVolume(source: string, device: string): Disposable {
  const name = Buffer.from(source).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
  const file = join("/run/kata-containers/shared/direct-volumes", name, "mountInfo.json");
  mkdirSync(dirname(file), { recursive: true });
  const info = {
    "volume-type": "directvol",
    device,
    fstype: "ext4",
    metadata: { fsGroup: "4242", fsGroupChangePolicy: "Always" },
    options: [],
  };
  writeFileSync(file, JSON.stringify(info));
  return { [Symbol.dispose]: () => rmSync(dirname(file), { recursive: true }) };
}

const script = `
cat /config/key; echo
blockdev --getsize64 /dev/raw; printf written > /dev/raw
stat -c '%g %a' /direct; echo kept > /direct/file; grep -c ' /direct ext4 rw' /proc/mounts
stat -c '%g %a' /scratch; echo x > /scratch/file; cat /scratch/file
cat /shared/from-host; mkdir -m 700 /shared/dir; echo guest > /shared/dir/file; mv /shared/old /shared/new
grep ' /memory tmpfs ' /proc/mounts | grep -o 'size=[0-9]*k'; stat -c %g /memory
echo ready
until [ "$(cat /config/key)" = ..v2 ]; do sleep 0.2; done; echo swapped; sync`;

test(
  "a container has its volumes, and a configMap's change while it runs",
  async () => {
    const config = join(volumes, "kubernetes.io~configmap/config");
    const scratch = join(volumes, "kubernetes.io~empty-dir/scratch");
    const memory = join(volumes, "kubernetes.io~empty-dir/memory");
    const shared = join(host.dir, "shared, with a comma");
    const direct = join(volumes, "kubernetes.io~csi/pvc/mount");
    using stack = new DisposableStack();
    writeConfigMap(config, "..v1");
    for (const path of [scratch, memory, direct]) mkdirSync(path, { recursive: true, mode: 0o777 });
    mkdirSync(shared);
    for (const name of ["from-host", "old"]) writeFileSync(join(shared, name), "host\n");
    chmodSync(scratch, 0o777);
    chownSync(scratch, 0, 4243);
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", memory);
    stack.defer(() => run("umount", memory));
    chownSync(memory, 0, 4244);
    for (const name of ["raw", "direct"]) makeDisk(join(host.dir, `${name}.img`));
    const loop = run("losetup", "--find", "--show", join(host.dir, "raw.img"));
    stack.defer(() => run("losetup", "--detach", loop));
    stack.use(announceDirectVolume(direct, join(host.dir, "direct.img")));

    const options = [
      [config, "/config"],
      [loop, "/dev/raw"],
      [direct, "/direct"],
      [scratch, "/scratch"],
      [memory, "/memory"],
      [shared, "/shared"],
    ].flatMap(([from, to]) => ["--volume", `${from}:${to}`]);
    const image = await busyboxImage("oci");
    const child = Bun.spawn([hakoBinary, "run", "--rm", ...options, image, "sh", "-c", script], {
      env: host.env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const told = new Response(child.stderr).text();
    let output = "";
    for await (const chunk of child.stdout) {
      output += Buffer.from(chunk).toString();
      if (output.includes("ready") && !existsSync(join(config, "..v2"))) writeConfigMap(config, "..v2");
    }
    expect({ code: await child.exited, stderr: await told }).toEqual({ code: 0, stderr: "" });
    expect(output.trim().split("\n")).toEqual([
      "..v1",
      String(8 * 1024 * 1024),
      "4242 2775",
      "1",
      "4243 2777",
      "x",
      "host",
      "size=1024k",
      "4244",
      "ready",
      "swapped",
    ]);
    expect(readFileSync(join(shared, "dir/file"), "utf8")).toBe("guest\n");
    expect(readdirSync(shared).sort()).toEqual(["dir", "from-host", "new"]);
    expect(readFileSync(loop).toString("latin1", 0, 7)).toBe("written");
    expect(run("debugfs", "-R", "cat /file", join(host.dir, "direct.img"))).toBe("kept");
    expect(host.leftovers()).toEqual([]);
  },
  MACHINE_TIMEOUT_MS,
);
