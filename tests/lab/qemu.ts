/** How L1 is started: an emulated machine with two disks, a control port and a serial console. */
import { readFileSync } from "node:fs";
import { findTool } from "./tool.ts";

export interface LabOptions {
  /** CPUs of L1, 1 or 2; 2 when absent. With 1 L1 has a stable TSC and a kvmclock master clock, with 2 it has SMP. */
  readonly cpus?: 1 | 2;
  /** Memory of L1, 2048 MiB when absent; the host gives only what L1 touches. */
  readonly memoryMib?: number;
  /** The serial console becomes this process's terminal, with a shell on it; the machine ends with the shell. */
  readonly interactive?: boolean;
}

/** QEMU's first file descriptors: sockets and the checkout's disk have no path. */
export const qemuFds = ["stdin", "stdout", "stderr", "control", "checkout", "monitor"] as const;

export interface MachineFiles extends LabOptions {
  readonly kernel: string;
  readonly root: string;
}

/**
 * QEMU dies with this process (setpriv); the disks are snapshots, so that nothing is ever written to the cache.
 *
 * All of its threads share one CPU of this machine, for the sake of an error of its emulator: VMRUN sets a bit of the
 * CPU's pending interrupts by an `or` that is not atomic and under no lock (helper_vmrun), while other threads set
 * theirs. On two CPUs an interrupt is lost now and then, and L1 or a guest of it stands still for ever; on one, a single
 * instruction is never cut in two.
 */
export function qemuCommand(files: MachineFiles): string[] {
  const { cpus = 2, memoryMib = 2048, interactive = false, kernel, root } = files;
  const disk = (id: string, path: string) => `if=none,id=${id},format=raw,snapshot=on,file=${quote(path)}`;
  const shell = interactive ? ` lab.shell=${process.stdout.rows || 24},${process.stdout.columns || 80}` : "";
  return [
    ...[
      "setpriv",
      "--pdeathsig",
      interactive ? "TERM" : "KILL",
      ...["taskset", "--cpu-list", String(lastAllowedCpu())],
      findTool("qemu-system-x86_64") ?? "qemu-system-x86_64",
    ],
    ...["-name", "hako-lab", "-machine", "q35,accel=tcg", "-cpu", "EPYC-v3,+svm,+npt"],
    ...["-smp", String(cpus), "-m", String(memoryMib)],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-chardev", `stdio,id=console,signal=${interactive ? "off" : "on"}`, "-serial", "chardev:console"],
    ...["-kernel", kernel],
    // The kernel has drivers for NVMe and ext4 built in: no initramfs is needed.
    ...[
      "-append",
      `console=ttyS0 quiet panic=-1 mitigations=off nokaslr sysrq_always_enabled root=/dev/nvme0n1 rw init=/etc/lab/init${shell}`,
    ],
    ...["-drive", disk("root", root), "-device", "nvme,drive=root,serial=root"],
    ...[
      "-drive",
      disk("checkout", `/proc/self/fd/${qemuFds.indexOf("checkout")}`),
      "-device",
      "virtio-blk-pci,drive=checkout,serial=checkout",
    ],
    ...["-device", "virtio-serial-pci", "-chardev", `socket,id=control,fd=${qemuFds.indexOf("control")}`],
    ...["-device", "virtserialport,chardev=control,name=hako.lab"],
    ...["-device", "virtio-rng-pci"],
    ...["-chardev", `socket,id=monitor,fd=${qemuFds.indexOf("monitor")}`],
    ...["-mon", "chardev=monitor,mode=control"],
  ];
}

/** The last CPU that this process may run on: what else is bound to one of them is bound to the first. */
function lastAllowedCpu(): number {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  const cpus = list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
  return cpus.at(-1) ?? 0;
}

/** A value inside a QEMU option. */
function quote(path: string): string {
  return path.replaceAll(",", ",,");
}
