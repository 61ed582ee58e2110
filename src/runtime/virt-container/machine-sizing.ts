import type { AgentClient } from "#agent-client/client.ts";
import type { Capability, Machine } from "#hypervisor/hypervisor.ts";
import { parseCpuList } from "#linux/cpu-affinity.ts";
import type { Resources } from "#oci/runtime-spec.ts";
import { cpusOf, growSize, type MachineSize, type ResourceLimits } from "#resource/machine-size.ts";
import { pinVcpus } from "#resource/vcpu-pinning.ts";
import { logger } from "#telemetry/log.ts";

/** The parts of a guest that a change of size needs. */
export interface SizedGuest {
  readonly machine: Machine;
  readonly agent: AgentClient["agent"];
}

export interface SizingOptions {
  /** What the machine has started with, and how far it may grow. */
  readonly size: MachineSize;
  /** Of the machine; without the one for vCPUs or memory these stay as they are. */
  readonly capabilities: ReadonlySet<Capability>;
  readonly pinning: boolean;
}

interface Wish {
  readonly limits: ResourceLimits;
  /** As `0-3`; undefined for any. */
  readonly cpus: string | undefined;
}

const log = logger("sizing");

/**
 * Keeps a running machine in step with what its containers ask for: vCPUs and memory grow and shrink with the sum of
 * their limits, and with pinning each vCPU gets a CPU of the containers' own. A machine that cannot change is left.
 */
export class MachineSizing {
  readonly #options: SizingOptions;
  readonly #wishes = new Map<string, Wish>();
  #current: { vcpus: number; memoryMib: number };

  constructor(options: SizingOptions) {
    this.#options = options;
    this.#current = { vcpus: options.size.vcpus, memoryMib: options.size.memoryMib };
  }

  /** Notes what a container asks for from now on; what is absent in `resources` stays. */
  set(containerId: string, resources: Resources | undefined): void {
    const before = this.#wishes.get(containerId);
    const cpus = cpusOf(resources?.cpu) ?? before?.limits.cpus;
    const memory = resources?.memory?.limit;
    const memoryBytes = memory !== undefined && memory > 0 ? memory : before?.limits.memoryBytes;
    this.#wishes.set(containerId, {
      limits: { ...(cpus !== undefined && { cpus }), ...(memoryBytes !== undefined && { memoryBytes }) },
      cpus: resources?.cpu?.cpus || before?.cpus,
    });
  }

  delete(containerId: string): void {
    this.#wishes.delete(containerId);
  }

  /** Whether the machine would have to grow for what is noted. */
  get isTooSmall(): boolean {
    const { vcpus, memoryMib } = this.#wanted();
    return vcpus > this.#current.vcpus || memoryMib > this.#current.memoryMib;
  }

  /** Gives the machine the size for what is noted. A guest that does not let go of something keeps it. */
  async apply({ machine, agent }: SizedGuest, signal?: AbortSignal): Promise<void> {
    const { capabilities } = this.#options;
    const { vcpus, memoryMib } = this.#wanted();
    if (vcpus !== this.#current.vcpus && capabilities.has("vcpu-hotplug")) {
      const reached = await machine.resizeVcpus(vcpus, signal);
      const grown = reached - this.#current.vcpus;
      this.#current.vcpus = reached;
      const request = { wait: true, nbCpus: grown, cpuOnly: true };
      if (grown > 0) await agent.onlineCPUMem(request, signal ? { signal } : {});
    }
    if (memoryMib !== this.#current.memoryMib && capabilities.has("memory-hotplug")) {
      this.#current.memoryMib = await machine.resizeMemory(memoryMib, signal);
    }
    await this.pin(machine, signal);
  }

  /** Binds the vCPU threads to the containers' CPUs, if that is configured and they have any. */
  async pin(machine: Machine, signal?: AbortSignal): Promise<void> {
    if (!this.#options.pinning) return;
    const cpus = [...this.#wishes.values()].map((wish) => wish.cpus).filter((list) => list !== undefined);
    if (cpus.length === 0) return;
    if (!machine.vcpuThreads) {
      log.warn("vCPUs are not pinned: the monitor does not tell its threads");
      return;
    }
    const threads = await machine.vcpuThreads(signal);
    const pinned = pinVcpus(threads, parseCpuList(cpus.join(",")));
    log.debug(pinned ? "vCPUs are pinned" : "vCPUs share the containers' CPUs", { cpus, threads });
  }

  #wanted(): { vcpus: number; memoryMib: number } {
    return growSize(
      this.#options.size,
      [...this.#wishes.values()].map(({ limits }) => limits),
    );
  }
}
