import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tscFrequencyKhz } from "#sys/tsc.ts";
import { busybox, compileStatic, hakoInit, makeRootfs, TemporaryDirectory } from "./container.ts";

const root = join(import.meta.dir, "../..");
const kernel = join(root, "dist/kernel/vmlinux");
const QEMU = "qemu-system-x86_64";
const TOOLS = [QEMU, "mkfs.erofs", "cpio"];

/** Why guests of hako-init cannot be booted here, or undefined. */
export const guestObstacle = !existsSync(kernel)
  ? "needs the guest kernel (bun build.ts kernel)"
  : !existsSync(hakoInit)
    ? "needs the built hako-init (bun build.ts native)"
    : busybox === undefined
      ? "needs busybox-static"
      : TOOLS.filter((tool) => !Bun.which(tool)).map((tool) => `needs ${tool}`)[0];

export interface GuestOptions {
  /** Launch requests that tests/fixtures/launch-agent.c carries out one after the other. */
  readonly requests?: readonly Uint8Array[];
  /** How that agent ends: asks for power-off, exits with code 7, closes its socket, or does not exist. */
  readonly end?: "power-off" | "die" | "hang-up" | "missing";
  readonly kernelParams?: readonly string[];
  readonly acpi?: boolean;
  /** Serial of the image's device. */
  readonly serial?: string;
  /** The agent's program as a chunk-based file on a second device, as in hako's own guest image. */
  readonly programDevice?: boolean;
}

export interface GuestRun {
  /** QEMU's exit code: 0 for a guest that switched itself off or restarted. */
  readonly code: number | null;
  readonly console: string;
}

/** Boots a guest whose PID 1 is hako-init and whose root holds a fake agent and, in /box, a container's files. */
export async function bootGuest(options: GuestOptions): Promise<GuestRun> {
  using directory = new TemporaryDirectory();
  const initrd = makeInitrd(join(directory.path, "initrd"));
  const image = makeImage(directory.path, options);
  const acpi = options.acpi ?? true;
  const machine = acpi ? "microvm,acpi=on,rtc=on" : "microvm,acpi=off,rtc=on";
  const params = ["console=ttyS0", "quiet", "panic=-1", "reboot=t", "mitigations=off"];
  // Emulation must not let the kernel measure its clock: on a busy host that fails.
  params.push(`tsc_early_khz=${await tscFrequencyKhz()}`, "tsc=reliable");
  if (acpi) params.push("pci=off");
  const drives = [{ file: image, serial: options.serial ?? "hako-guest" }];
  if (options.programDevice) drives.push({ file: join(directory.path, "program"), serial: "hako-exe" });
  const guest = Bun.spawn(
    [
      QEMU,
      ...["-machine", machine, "-global", "virtio-mmio.force-legacy=false"],
      ...["-accel", "tcg", "-cpu", "max", "-m", "192", "-smp", "1"],
      ...["-no-user-config", "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"],
      ...[
        "-kernel",
        kernel,
        "-initrd",
        initrd,
        "-append",
        [...params, ...(options.kernelParams ?? [])].join(" "),
      ],
      // The last device is found first by the kernel: order must not matter.
      ...drives.flatMap(({ file, serial }, index) => [
        ...["-drive", `if=none,id=d${index},file=${file},format=raw,readonly=on`],
        ...["-device", `virtio-blk-device,drive=d${index},serial=${serial}`],
      ]),
    ],
    { stdin: "ignore", stdout: "pipe", stderr: "inherit", timeout: 60_000 },
  );
  const console = await new Response(guest.stdout).text();
  return { code: await guest.exited, console: console.replaceAll("\r", "") };
}

function makeInitrd(path: string): string {
  const content = `${path}.d`;
  mkdirSync(join(content, "dev"), { recursive: true });
  copyFileSync(hakoInit, join(content, "init"));
  runTool(["mknod", join(content, "dev/console"), "c", "5", "1"]);
  runTool(["sh", "-c", `cd ${content} && find . | cpio --quiet -o -H newc > ${path}`]);
  return path;
}

function makeImage(directory: string, options: GuestOptions): string {
  const content = join(directory, "content");
  const folders = ["dev", "etc/launch", "proc", "root", "run", "sys", "tmp", "usr/bin", "box"];
  for (const folder of folders) mkdirSync(join(content, folder), { recursive: true });
  symlinkSync("usr/bin", join(content, "bin"));
  if (options.end !== "missing")
    compileStatic("tests/fixtures/launch-agent.c", join(content, "usr/bin/hako"));
  makeRootfs(join(content, "box"));
  writeFileSync(join(content, "etc/launch/end"), options.end ?? "power-off");
  for (const [index, request] of (options.requests ?? []).entries()) {
    writeFileSync(join(content, `etc/launch/${index + 1}`), request);
  }
  const image = join(directory, "image");
  const device = options.programDevice ? ["--chunksize=4096", `--blobdev=${join(directory, "program")}`] : [];
  runTool(["mkfs.erofs", "--quiet", ...device, image, content]);
  return image;
}

function runTool(command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command, { stdout: "ignore" });
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}
