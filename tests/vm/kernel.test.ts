/**
 * The guest kernel on the machines it is made for, under TCG. Its init is tests/fixtures/kernel-guest, which does
 * what containers and the agent will do and tells what it saw. HAKO_KERNEL_DIR names another kernel than dist/kernel.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { QmpClient } from "#hypervisor/qemu/qmp.ts";
import { tscFrequencyKhz } from "#sys/tsc.ts";
import { findDifferences, parseFragment } from "../../config/kernel/kernel.ts";
import { hasPvhNote } from "../../config/kernel/pack-elf.ts";
import {
  bootGuest,
  type GuestDisks,
  type GuestReport,
  guestDisks,
  kernelDirectory,
  kernelGuestInitramfs,
} from "../support/kernel-guest.ts";
import { testIf } from "../support/skip.ts";

const tools = ["qemu-system-x86_64", "musl-gcc", "cpio", "mkfs.erofs", "mkfs.ext4"];
const missing = tools.filter((tool) => Bun.which(tool) === null);
const canRun = missing.length === 0 && process.getuid?.() === 0;

interface Machine {
  readonly name: string;
  readonly image: "vmlinux" | "bzImage";
  readonly args: (directory: string, disks: GuestDisks) => string[];
  readonly params: string;
  readonly groups: readonly string[];
  readonly end: "reboot" | "poweroff";
  readonly processors: number;
}

const software = ["process", "hardening", "cgroup", "network", "filter"];
const devices = ["storage", "device"];
const drivers = [
  "virtio_balloon",
  "virtio_blk",
  "virtio_blk",
  "virtio_blk",
  "virtio_console",
  "virtio_net",
  "virtio_rng",
];

const machines: readonly Machine[] = [
  {
    name: "microvm: PVH, devices on the command line",
    image: "vmlinux",
    args: (directory, disks) => [...plainMicrovm(1), ...deviceArgs("device", directory, disks)],
    params: "acpi=off pci=off nolapic_timer reboot=t",
    groups: [...software, ...devices],
    end: "reboot",
    processors: 1,
  },
  {
    // Without the group "process": a busy host makes the kernel give up the local APIC's timer here, see the
    // kernel's README, and with it the high-resolution timers.
    name: "microvm: PVH, vCPUs by the MP table",
    image: "vmlinux",
    args: (directory, disks) => [...plainMicrovm(2), ...deviceArgs("device", directory, disks)],
    params: "acpi=off pci=off reboot=t",
    groups: ["cgroup", ...devices],
    end: "reboot",
    processors: 2,
  },
  {
    name: "microvm: PVH, hardware-reduced ACPI",
    image: "vmlinux",
    args: (directory, disks) => [
      ...["-machine", "microvm,acpi=on,pit=off,pic=off,auto-kernel-cmdline=off"],
      ...["-cpu", "max", "-smp", "2", "-m", "256", "-global", "virtio-mmio.force-legacy=false"],
      ...deviceArgs("device", directory, disks),
    ],
    params: "pci=off",
    groups: ["process", ...devices],
    end: "poweroff",
    processors: 2,
  },
  {
    name: "q35: PVH, ACPI, PCI, hotplug",
    image: "vmlinux",
    args: (directory, disks) => [
      ...["-machine", "q35", "-cpu", "max", "-smp", "1,maxcpus=2", "-m", "768M,maxmem=4G,slots=2"],
      ...deviceArgs("pci", directory, disks),
      ...pcArgs(disks),
    ],
    params: "",
    groups: ["process", "network", ...devices, "pc"],
    end: "poweroff",
    processors: 1,
  },
  {
    name: "q35: bzImage, reset by the keyboard controller",
    image: "bzImage",
    args: (directory, disks) => [
      ...["-machine", "q35", "-cpu", "qemu64", "-smp", "2", "-m", "256"],
      ...deviceArgs("pci", directory, disks),
    ],
    params: "reboot=k",
    groups: ["process", ...devices],
    end: "reboot",
    processors: 2,
  },
];

for (const machine of machines) describe(machine.name, () => machineTests(machine));

function machineTests(machine: Machine): void {
  const kernel = join(kernelDirectory, machine.image);
  const runs = canRun && existsSync(kernel);
  const guestTest = testIf(runs, `needs root, "${kernel}" and ${tools.join(", ")}`);
  let report: GuestReport;
  let disks: GuestDisks;
  let directory: string;
  const started = Date.now() / 1000;

  beforeAll(async () => {
    if (!runs) return;
    directory = mkdtempSync(join(tmpdir(), "hako-kernel-"));
    disks = await guestDisks();
    copyFileSync(disks.ext4, join(directory, "ext4"));
    writeFileSync(join(directory, "hot"), "hot-disk".padEnd(65536, "\0"));
    report = await bootGuest({
      args: machine.args(directory, disks),
      kernel,
      initramfs: await kernelGuestInitramfs(),
      params: `quiet console=ttyS0 panic=-1 tsc=reliable tsc_early_khz=${await tscFrequencyKhz()} ${machine.params} end=${machine.end} checks=${machine.groups.join()}`,
      directory,
      onRequest: (request, qmp) => answer(request, qmp, directory),
    });
    if (!report.finished || report.failures.size > 0) console.error(report.console);
  }, 180_000);

  afterAll(() => {
    if (directory !== undefined) rmSync(directory, { recursive: true });
  });

  for (const group of machine.groups) {
    guestTest(`every check of "${group}" passes`, () => {
      expect(report.failures.get(group) ?? []).toEqual([]);
      const count = report.counts.get(group);
      expect(count?.planned).toBeGreaterThan(0);
      expect(count?.passed).toBe(count?.planned ?? 0);
    });
  }

  guestTest(`the machine ends by ${machine.end}`, () => {
    expect(report.failures.get("none") ?? []).toEqual([]);
    expect(report.finished).toBe(true);
  });

  guestTest("every virtio device has its driver", () => {
    const found = report.facts.get("virtio")?.split(" ").sort();
    const extra = machine.groups.includes("pc") ? ["virtio_mem", "virtio_pmem", "virtio_pmem"] : [];
    expect(found).toEqual([...drivers, ...extra].sort());
  });

  guestTest("every vCPU runs", () => {
    expect(report.facts.get("processors")).toBe(String(machine.processors));
  });

  guestTest("EROFS gives the bytes that were put in", () => {
    expect(report.facts.get("erofs")).toBe(disks.fileHash);
    if (machine.groups.includes("pc")) expect(report.facts.get("pmem")).toBe(disks.fileHash);
  });

  guestTest("the clock was read from the RTC", () => {
    const time = Number(report.facts.get("time"));
    expect(time).toBeGreaterThan(started - 5);
    expect(time).toBeLessThan(Date.now() / 1000 + 5);
  });

  guestTest("what the guest writes to its port and disk arrives", () => {
    expect(readFileSync(join(directory, "port"), "utf8")).toBe("port\n");
    expect(readFileSync(join(directory, "ext4")).includes("kept")).toBe(true);
  });
}

function plainMicrovm(processors: number): string[] {
  const size = ["-cpu", "max", "-smp", String(processors), "-m", "256"];
  return ["-machine", "microvm,acpi=off", ...size, "-global", "virtio-mmio.force-legacy=false"];
}

/** The same devices for every machine; `suffix` is how QEMU calls them on the machine's bus. */
function deviceArgs(suffix: "pci" | "device", directory: string, disks: GuestDisks): string[] {
  const disk = (id: string, file: string, readOnly: boolean) => [
    ...["-drive", `if=none,id=${id},format=raw,file=${file},read-only=${readOnly ? "on" : "off"}`],
    ...["-device", `virtio-blk-${suffix},drive=${id},serial=${id}`],
  ];
  return [
    ...disk("erofs-image", disks.erofs, true),
    ...disk("erofs-blob", disks.blob, true),
    ...disk("ext4-disk", join(directory, "ext4"), false),
    ...["-device", `virtio-rng-${suffix}`, "-device", `virtio-balloon-${suffix}`],
    ...["-netdev", "hubport,id=net0,hubid=0"],
    ...["-device", `virtio-net-${suffix},netdev=net0,mac=02:00:00:00:00:01`],
    ...["-device", `virtio-serial-${suffix}`, "-chardev", `file,id=port,path=${join(directory, "port")}`],
    ...["-device", "virtserialport,chardev=port,name=hako.test"],
  ];
}

/** What the group "pc" needs beyond that. */
function pcArgs(disks: GuestDisks): string[] {
  const pmem = (id: string, file: string) => [
    ...[
      "-object",
      `memory-backend-file,id=${id},share=on,readonly=on,mem-path=${file},size=${statSync(file).size}`,
    ],
    ...["-device", `virtio-pmem-pci,memdev=${id},id=device-${id}`],
  ];
  return [
    ...["-device", "vmgenid,guid=auto", "-device", "pvpanic"],
    ...["-device", "pcie-root-port,id=port0,chassis=1"],
    ...pmem("pmem0", disks.erofs),
    ...pmem("pmem1", disks.blob),
    ...["-object", "memory-backend-ram,id=pool,size=512M"],
    ...["-device", "virtio-mem-pci,id=growth,memdev=pool,requested-size=0"],
  ];
}

/** Does at the machine's control socket what the guest asks for. */
async function answer(request: string, qmp: QmpClient, directory: string): Promise<void> {
  const setGrowth = (bytes: number) =>
    qmp.execute("qom-set", { path: "/machine/peripheral/growth", property: "requested-size", value: bytes });
  switch (request) {
    case "processor": {
      const slots = (await qmp.execute("query-hotpluggable-cpus")) as {
        type: string;
        props: object;
        "qom-path"?: string;
      }[];
      const free = slots.find((slot) => slot["qom-path"] === undefined);
      await qmp.execute("device_add", { driver: free?.type, id: "cpu1", ...free?.props });
      return;
    }
    case "disk": {
      const file = { driver: "file", filename: join(directory, "hot") };
      await qmp.execute("blockdev-add", { driver: "raw", "node-name": "hot", "read-only": true, file });
      await qmp.execute("device_add", {
        driver: "virtio-blk-pci",
        id: "hot-disk",
        drive: "hot",
        serial: "hot-disk",
        bus: "port0",
      });
      return;
    }
    case "no-disk":
      await qmp.execute("device_del", { id: "hot-disk" });
      return;
    case "memory-module":
      await qmp.execute("object-add", {
        "qom-type": "memory-backend-ram",
        id: "module",
        size: 128 * 2 ** 20,
      });
      // Above the other devices' memory, on a boundary of memory blocks.
      await qmp.execute("device_add", {
        driver: "pc-dimm",
        id: "dimm0",
        memdev: "module",
        addr: 2 ** 32 + 2 ** 31,
      });
      return;
    case "virtio-memory":
      await setGrowth(256 * 2 ** 20);
      return;
    case "no-virtio-memory":
      await setGrowth(0);
      return;
    case "balloon":
      await qmp.execute("balloon", { value: 512 * 2 ** 20 });
      return;
    case "no-balloon":
      await qmp.execute("balloon", { value: 768 * 2 ** 20 });
      return;
    case "power-button":
      await qmp.execute("system_powerdown");
      return;
    default:
      throw new Error(`The guest asks for "${request}"`);
  }
}

describe("the build's output", () => {
  const vmlinux = join(kernelDirectory, "vmlinux");
  const config = join(kernelDirectory, "config");
  const kernelTest = testIf(existsSync(vmlinux), `needs "${vmlinux}"`);
  const buildTest = testIf(existsSync(config), `needs "${config}": the kernel was built elsewhere`);

  kernelTest("vmlinux has at most 16 MB", () => {
    expect(statSync(vmlinux).size).toBeLessThanOrEqual(16_000_000);
  });

  kernelTest("vmlinux names its PVH entry point", () => {
    expect(hasPvhNote(readFileSync(vmlinux))).toBe(true);
  });

  buildTest("config is what the fragments ask for", () => {
    for (const name of ["common.config", "x86_64.config"]) {
      const fragment = readFileSync(join(import.meta.dir, "../../config/kernel", name), "utf8");
      expect(findDifferences(parseFragment(fragment, name), readFileSync(config, "utf8"))).toEqual([]);
    }
  });

  buildTest("version names the release and the source", () => {
    const text = readFileSync(join(kernelDirectory, "version"), "utf8");
    expect(text).toMatch(
      /^release=6\.1\.\d+-hako\nsource=linux-source-6\.1 \S+\nsource-sha256=[0-9a-f]{64}\n$/,
    );
  });
});
