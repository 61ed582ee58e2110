import { readFileSync } from "node:fs";
import { release } from "node:os";

/** Raised when templates are made differently from the same parts. */
const FORMAT = 1;

/** What a template's machine is made of; two machines alike in all of it can be clones of one template. */
export interface TemplateParts {
  readonly driver: string;
  /** Digest of kernel, initramfs, guest image and executable. */
  readonly assets: string;
  /** Path, size and change time of a kernel that the configuration names; empty for hako's own. */
  readonly kernel: string;
  readonly kernelParams: readonly string[];
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly memoryMib: number;
  readonly maxMemoryMib: number;
}

/** Lines of the first processor in /proc/cpuinfo that say what a guest may rely on, its microcode included. */
const CPU_LINES = /^(vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:.*$/gm;

/** The name of the template for these parts on this host: 32 hexadecimal digits. */
export function templateKey(parts: TemplateParts, cpuinfo = readFileSync("/proc/cpuinfo", "latin1")): string {
  const firstCpu = cpuinfo.split("\n\n")[0] ?? "";
  const host = { kernel: release(), cpu: firstCpu.match(CPU_LINES) ?? [] };
  const { driver, assets, kernel, kernelParams, vcpus, maxVcpus, memoryMib, maxMemoryMib } = parts;
  const content = [
    FORMAT,
    host,
    driver,
    assets,
    kernel,
    kernelParams,
    vcpus,
    maxVcpus,
    memoryMib,
    maxMemoryMib,
  ];
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 32);
}
