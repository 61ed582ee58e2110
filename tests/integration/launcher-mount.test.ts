import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContainerLab, launchObstacle, type MountSpec, makeRootfs } from "../support/container.ts";
import { testIf } from "../support/skip.ts";

const containerTest = testIf(launchObstacle === undefined, launchObstacle ?? "");
let lab: ContainerLab;
beforeAll(async () => {
  if (launchObstacle === undefined) lab = await ContainerLab.start();
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

function bind(source: string, destination: string, ...options: string[]): MountSpec {
  return { destination, source, type: "bind", options: ["rbind", ...options] };
}

function tmpfs(destination: string, ...options: string[]): MountSpec {
  return { destination, source: "tmpfs", type: "tmpfs", options };
}

/** Options of the mount at a path, as the container sees them: those of the mount, then those of the file system. */
function mountInfo(text: string, path: string): { options: string[]; tags: string; superOptions: string[] } {
  const line = text.split("\n").find((entry) => entry.split(" ")[4] === path);
  const [before = "", after = ""] = (line ?? "").split(" - ");
  const fields = before.split(" ");
  return {
    options: (fields[5] ?? "").split(","),
    tags: fields.slice(6).join(" "),
    superOptions: (after.split(" ")[2] ?? "").split(","),
  };
}

async function infoOf(path: string, mounts: MountSpec[], linux: object = {}) {
  return mountInfo(await lab.shell("cat /proc/self/mountinfo", { mounts, linux }), path);
}

describe("mounts", () => {
  containerTest("nothing of the outside remains", async () => {
    const info = await lab.shell("cat /proc/self/mountinfo");
    const targets = info.split("\n").map((line) => line.split(" ")[4]);
    expect(targets).toEqual(["/", "/proc", "/dev", "/dev/pts", "/dev/shm"]);
  });

  containerTest("attributes of a new file system", async () => {
    const info = await infoOf("/m", [
      tmpfs("/m", "nosuid", "nodev", "noexec", "noatime", "mode=0711", "size=64k"),
    ]);
    expect(info.options).toEqual(["rw", "nosuid", "nodev", "noexec", "noatime"]);
    expect(info.superOptions).toEqual(expect.arrayContaining(["mode=711", "size=64k"]));
    expect((await infoOf("/m", [tmpfs("/m", "ro", "strictatime", "nodiratime")])).options).toEqual([
      "ro",
      "nodiratime",
    ]);
  });

  containerTest("a tmpfs keeps the mode of the directory under it, unless it has its own", async () => {
    mkdirSync(join(lab.rootfs, "moded"), { mode: 0o750, recursive: true });
    expect(await lab.shell("stat -c %a /moded", { mounts: [tmpfs("/moded")] })).toBe("750");
    expect(await lab.shell("stat -c %a /moded", { mounts: [tmpfs("/moded", "mode=1770")] })).toBe("1770");
    expect(await lab.shell("stat -c %a /fresh", { mounts: [tmpfs("/fresh")] })).toBe("1777");
  });

  containerTest("a bind mount of a directory and of a file, targets made", async () => {
    const volume = lab.directory("volume");
    writeFileSync(join(volume, "data"), "content");
    const mounts = [bind(volume, "/deep/volume"), bind(join(volume, "data"), "/etc/one/file", "ro")];
    const script =
      "cat /deep/volume/data /etc/one/file; echo new > /deep/volume/new; echo x > /etc/one/file || echo ro";
    expect(await lab.shell(`(${script}) 2>/dev/null`, { mounts })).toBe("contentcontentro");
    expect(readFileSync(join(volume, "new"), "utf8")).toBe("new\n");
  });

  containerTest("ro covers one mount, rro all below, bind leaves out what is below", async () => {
    const volume = lab.directory("nested");
    mkdirSync(join(volume, "sub"), { recursive: true });
    using _ = mounted(["-t", "tmpfs", "none", join(volume, "sub")]);
    const script = "touch /v/x 2>/dev/null && echo top; touch /v/sub/x 2>/dev/null && echo sub; true";
    expect(await lab.shell(script, { mounts: [bind(volume, "/v", "ro")] })).toBe("sub");
    expect(await lab.shell(script, { mounts: [bind(volume, "/v", "rro")] })).toBe("");
    const single = { ...bind(volume, "/v"), options: ["bind"] };
    expect(await lab.shell("ls -A /v/sub | wc -l", { mounts: [single] })).toBe("0");
  });

  containerTest("propagation: private unless asked for", async () => {
    const volume = lab.directory("shared");
    mkdirSync(join(volume, "sub"), { recursive: true });
    using _ = mounted(["-t", "tmpfs", "none", volume]);
    Bun.spawnSync(["mount", "--make-shared", volume]);
    expect((await infoOf("/v", [bind(volume, "/v")])).tags).toBe("");
    expect((await infoOf("/v", [bind(volume, "/v", "rslave")])).tags).toMatch(/^master:\d+$/);
    expect((await infoOf("/v", [bind(volume, "/v", "rshared")])).tags).toMatch(/^shared:\d+$/);
    expect((await infoOf("/v", [bind(volume, "/v", "unbindable")])).tags).toBe("unbindable");
    expect((await infoOf("/", [], { RootfsPropagation: "shared" })).tags).toMatch(/^shared:\d+$/);
    expect((await infoOf("/", [])).tags).toBe("");
  });

  containerTest("a mount that appears outside reaches an rslave volume", async () => {
    const volume = lab.directory("slave");
    using _ = mounted(["-t", "tmpfs", "none", volume]);
    Bun.spawnSync(["mount", "--make-shared", volume]);
    mkdirSync(join(volume, "later"));
    await using container = await lab.sleeper({ mounts: [bind(volume, "/v", "rslave"), bind(volume, "/w")] });
    using later = mounted(["-t", "tmpfs", "none", join(volume, "later")]);
    writeFileSync(join(volume, "later/file"), "");
    const { stdout } = await container.exec(["sh", "-c", "ls /v/later; ls /w/later"]);
    expect([later !== undefined, stdout]).toEqual([true, "file\n"]);
  });

  containerTest("later mounts lie over earlier ones", async () => {
    const volume = lab.directory("below");
    writeFileSync(join(volume, "file"), "below");
    const mounts = [tmpfs("/a"), bind(volume, "/a/b"), tmpfs("/a/b/c")].slice(0, 2);
    expect(await lab.shell("cat /a/b/file", { mounts })).toBe("below");
  });

  containerTest("a failure names target, file system, and what the kernel says of it", async () => {
    const wrong = lab.run(["true"], { mounts: [tmpfs("/m", "size=many")] });
    await expect(wrong).rejects.toThrow(
      /mount \/m \(file system tmpfs: e tmpfs: Bad value for 'size'\): EINVAL/,
    );
    const unknown = lab.run(["true"], { mounts: [{ ...tmpfs("/m"), type: "nofs" }] });
    await expect(unknown).rejects.toThrow("mount /m (file system nofs): ENODEV");
    const missing = lab.run(["true"], { mounts: [bind("/not/there", "/m")] });
    await expect(missing).rejects.toThrow("mount /m (source /not/there): ENOENT");
    const mismatch = lab.run(["true"], { mounts: [bind("/etc/hosts", "/bin")] });
    await expect(mismatch).rejects.toThrow("mount /bin: ENOTDIR");
    await expect(lab.run(["true"], { mounts: [tmpfs("//")] })).rejects.toThrow("launch request");
  });
});

/** Mounts something for a test. */
function mounted(args: string[]): Disposable {
  const { exitCode, stderr } = Bun.spawnSync(["mount", ...args]);
  if (exitCode !== 0) throw new Error(`mount ${args.join(" ")}: ${stderr}`);
  const target = args.at(-1) ?? "";
  return { [Symbol.dispose]: () => void Bun.spawnSync(["umount", "-l", target]) };
}

describe("protection", () => {
  containerTest("masked files and directories read as empty, missing ones do not matter", async () => {
    writeFileSync(join(lab.rootfs, "etc/secret"), "secret");
    writeFileSync(join(lab.rootfs, "etc/secret2"), "secret");
    writeFileSync(join(lab.rootfs, "home/file"), "");
    const MaskedPaths = ["/etc/secret", "/etc/secret2", "/home", "/proc/keys", "/no/such", "/etc/secret/x"];
    const script =
      "cat /etc/secret /etc/secret2 /proc/keys; ls /home; touch /home/x 2>/dev/null || echo read-only";
    expect(await lab.shell(script, { linux: { MaskedPaths } })).toBe("read-only");
  });

  containerTest("read-only paths and what is mounted on them", async () => {
    const linux = { ReadonlyPaths: ["/etc", "/proc/sys", "/no/such", "/data"] };
    const script =
      "for f in /etc/x /proc/sys/kernel/hostname /data/x /data/in/x; do (echo y > $f) 2>/dev/null && echo $f; done; true";
    expect(await lab.shell(script, { linux, mounts: [tmpfs("/data"), tmpfs("/data/in")] })).toBe("");
  });

  containerTest("a read-only root still has its volumes, and the directory to start in", async () => {
    const script = "touch /x 2>/dev/null && echo root; touch /data/x && echo data; pwd";
    const change = { readonly: true, mounts: [tmpfs("/data")], process: { Cwd: "/made/for/it" } };
    expect(await lab.shell(script, change)).toBe("data\n/made/for/it");
  });
});

describe("devices", () => {
  containerTest("the ones that every container has, and their links", async () => {
    const nodes = "null zero full random urandom tty";
    const script = `for d in ${nodes}; do stat -c '%t:%T %a' /dev/$d; done; for l in fd stdin stdout stderr core ptmx; do readlink /dev/$l; done`;
    expect((await lab.shell(script)).split("\n")).toEqual([
      ..."1:3 1:5 1:7 1:8 1:9 5:0".split(" ").map((number) => `${number} 666`),
      ...[
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "/proc/kcore",
        "pts/ptmx",
      ],
    ]);
    expect(
      await lab.shell(
        "echo ignored > /dev/null; head -c 3 /dev/urandom | wc -c; echo x > /dev/full || echo full",
      ),
    ).toBe("3\nfull");
  });

  containerTest("further ones, in directories made for them", async () => {
    const device = {
      Path: "/dev/a/b/fuse",
      Type: "c",
      Major: 10n,
      Minor: 229n,
      FileMode: 0o620,
      UID: 7,
      GID: 8,
    };
    const pipe = { Path: "/dev/pipe", Type: "p", Major: 0n, Minor: 0n, FileMode: 0, UID: 0, GID: 0 };
    const block = {
      Path: "/dev/big",
      Type: "b",
      Major: 259n,
      Minor: 70_000n,
      FileMode: 0o600,
      UID: 0,
      GID: 0,
    };
    const script = "stat -c '%F %t:%T %a %u:%g' /dev/a/b/fuse /dev/pipe /dev/big";
    expect((await lab.shell(script, { linux: { Devices: [device, pipe, block] } })).split("\n")).toEqual([
      "character special file a:e5 620 7:8",
      "fifo 0:0 666 0:0",
      "block special file 103:11170 600 0:0",
    ]);
  });

  containerTest("a /dev bound from outside is left as it is", async () => {
    const volume = lab.directory("dev");
    const allMounts = [bind(volume, "/dev")];
    expect(await lab.shell("ls -A /dev", { allMounts })).toBe("");
  });

  containerTest("a file in the way is not replaced", async () => {
    const rootfs = makeRootfs(lab.directory("occupied"));
    writeFileSync(join(rootfs, "dev/null"), "a file");
    await expect(lab.run(["true"], { allMounts: [] }, rootfs)).rejects.toThrow("device /dev/null: EEXIST");
  });
});

describe("a hostile image", () => {
  containerTest("cannot lead a mount, a device or a directory outside by links", async () => {
    const outside = lab.directory("outside");
    const rootfs = makeRootfs(lab.directory("escape"));
    const volume = lab.directory("escape-volume");
    writeFileSync(join(volume, "planted"), "");
    symlinkSync(outside, join(rootfs, "absolute"));
    symlinkSync("../../../../../../../../../../../..", join(rootfs, "upwards"));
    symlinkSync("/proc/self/cwd", join(rootfs, "magic"));
    rmSync(join(rootfs, "dev"), { recursive: true });
    symlinkSync(outside, join(rootfs, "dev"));
    const mounts = [
      bind(volume, "/absolute/in"),
      bind(volume, `/upwards${outside}/up`),
      bind(join(volume, "planted"), "/upwards/planted-file"),
    ];
    mkdirSync(join(rootfs, outside), { recursive: true });
    const change = { mounts, process: { Cwd: "/absolute/cwd" } };
    const inside = await lab.shell(
      `pwd; ls ${outside} ${outside}/in /planted-file; ls /dev/null`,
      change,
      rootfs,
    );
    expect(inside).toContain(`${outside}/cwd`);
    expect(inside).toContain("planted");
    expect([...new Bun.Glob("**").scanSync({ cwd: outside, onlyFiles: false })]).toEqual([]);
    expect(existsSync("/planted-file")).toBe(false);
  });

  containerTest("cannot use a magic link as a target", async () => {
    const rootfs = makeRootfs(lab.directory("magic"));
    symlinkSync("/proc/1/root/tmp", join(rootfs, "magic"));
    const run = lab.run(["true"], { mounts: [tmpfs("/magic/x")] }, rootfs);
    await expect(run).rejects.toThrow("mount /magic/x: ELOOP");
  });

  containerTest("cannot move /proc or hang a mount over the root", async () => {
    const rootfs = makeRootfs(lab.directory("proc-link"));
    rmSync(join(rootfs, "proc"), { recursive: true });
    symlinkSync("/tmp", join(rootfs, "proc"));
    await expect(lab.run(["true"], {}, rootfs)).rejects.toThrow("mount /proc: ELOOP");
    symlinkSync("/", join(lab.rootfs, "self"));
    await expect(lab.run(["true"], { mounts: [tmpfs("/self")] })).rejects.toThrow("mount /self: EINVAL");
  });

  containerTest("cannot have directories made through a dangling link", async () => {
    const rootfs = makeRootfs(lab.directory("dangling"));
    symlinkSync("/nowhere/at/all", join(rootfs, "dangling"));
    await expect(lab.run(["true"], { mounts: [tmpfs("/dangling/x")] }, rootfs)).rejects.toThrow(
      "/dangling/x: EEXIST",
    );
  });
});
