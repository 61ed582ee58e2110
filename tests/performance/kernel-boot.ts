/**
 * From the start of QEMU to the first line of init, under TCG, for our kernel on each machine and for Debian's stock
 * cloud kernel with the same initramfs. Prints JSON, milliseconds. `bun tests/performance/kernel-boot.ts [ROUNDS]`
 */
import { join } from "node:path";
import { tscFrequencyKhz } from "#sys/tsc.ts";
import { labKernel } from "../lab/kernel.ts";
import { kernelDirectory, kernelGuestInitramfs } from "../support/kernel-guest.ts";
import { interleave, printResult } from "../support/measure.ts";

const rounds = Number(process.argv[2] ?? 10);
const initramfs = await kernelGuestInitramfs();
const tsc = `tsc=reliable tsc_early_khz=${await tscFrequencyKhz()}`;
const microvm = "microvm,auto-kernel-cmdline=off,isa-serial=on";

/** Resolves when init has said its first word; the machine then resets, which ends QEMU. */
async function boot(kernel: string, machine: string, params: string): Promise<void> {
  const child = Bun.spawn(
    [
      "qemu-system-x86_64",
      ...["-machine", machine, "-accel", "tcg", "-cpu", "max", "-m", "256", "-no-reboot"],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"],
      ...[
        "-kernel",
        kernel,
        "-initrd",
        initramfs,
        "-append",
        `quiet console=ttyS0 panic=-1 ${tsc} ${params}`,
      ],
    ],
    { stdin: "ignore", stdout: "pipe", stderr: "inherit", timeout: 60_000, killSignal: "SIGKILL" },
  );
  try {
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) {
      text += decoder.decode(chunk, { stream: true });
      if (text.includes("@ init reached")) return;
    }
    throw new Error(`"${kernel}" did not reach init on ${machine}: ${text}`);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

const vmlinux = join(kernelDirectory, "vmlinux");
const bzImage = join(kernelDirectory, "bzImage");
const stock = await labKernel();
const milliseconds = await interleave(
  {
    "hako vmlinux, microvm, MP table": () =>
      boot(vmlinux, `${microvm},acpi=off`, "acpi=off pci=off nolapic_timer reboot=t"),
    "hako vmlinux, microvm, ACPI": () => boot(vmlinux, `${microvm},acpi=on,pit=off,pic=off`, "pci=off"),
    "hako vmlinux, q35": () => boot(vmlinux, "q35", ""),
    "hako bzImage, q35": () => boot(bzImage, "q35", ""),
    "stock bzImage, microvm, ACPI": () => boot(stock.image, `${microvm},acpi=on`, ""),
    "stock bzImage, q35": () => boot(stock.image, "q35", ""),
  },
  rounds,
);
printResult("kernel-boot", { stockKernel: stock.release, milliseconds });
