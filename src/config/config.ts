/** All settings that a file can change, with their units; `DEFAULT_CONFIG` holds without a file. */
export interface Config {
  readonly runtime: {
    /** `auto` takes the first driver that can work on this host. */
    readonly hypervisorName: "auto" | "qemu";
  };
  readonly qemu: {
    /** The executable; searched in the usual directories when empty. */
    readonly path: string;
    /** A guest kernel (vmlinux with a PVH note, or bzImage) instead of the embedded one; the latter when empty. */
    readonly kernel: string;
    readonly machineType: "microvm" | "q35";
    /** Added to the guest kernel's command line. */
    readonly kernelParams: readonly string[];
    readonly defaultVcpus: number;
    readonly defaultMemoryMib: number;
  };
  readonly agent: {
    /** How long the agent may take to answer for the first time; an emulated guest on a busy host is slow. */
    readonly reconnectTimeoutMs: number;
    readonly createContainerTimeoutMs: number;
    readonly logLevel: "trace" | "debug" | "info" | "warn" | "error";
  };
  readonly network: {
    /** IPv4 network out of which every sandbox gets four addresses. */
    readonly pool: string;
    readonly mtu: number;
  };
  readonly log: {
    /** Bytes a log file of a detached container may have; one older file of that size is kept. */
    readonly maxBytes: number;
  };
}

export const DEFAULT_CONFIG: Config = {
  runtime: { hypervisorName: "auto" },
  qemu: {
    path: "",
    kernel: "",
    machineType: "microvm",
    kernelParams: [],
    defaultVcpus: 1,
    defaultMemoryMib: 256,
  },
  agent: { reconnectTimeoutMs: 30_000, createContainerTimeoutMs: 30_000, logLevel: "warn" },
  network: { pool: "10.251.0.0/16", mtu: 1500 },
  log: { maxBytes: 4 * 1024 * 1024 },
};
