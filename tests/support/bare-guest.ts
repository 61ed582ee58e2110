/**
 * Machines of the built-in VMM with a bare-metal guest (tests/fixtures/bare-guest), on whatever /dev/kvm there is: also
 * the kind that only emulates ordinary kernels runs a few hundred thousand instructions of ring 0.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withDeadline } from "#base/deadline.ts";
import type { HakoError } from "#base/error.ts";
import { makeConsolePipe, readConsole } from "#linux/console-pipe.ts";
import { probeKvm } from "#linux/kvm-kind.ts";
import { memfd, O, openFd } from "#sys/fd.ts";
import { unixConnect, unixListen } from "#sys/socket.ts";
import { type Architecture, hostArchitecture } from "#vmm/architecture.ts";
import { encodeDevice, type VmDevice } from "#vmm/device.ts";
import { type MachinePlan, planMachine, type VmSpec } from "#vmm/machine-plan.ts";
import { loadSnapshot } from "#vmm/snapshot/load.ts";
import type { MachineRecord } from "#vmm/snapshot/machine-record.ts";
import { saveMachine } from "#vmm/snapshot/save.ts";
import { VirtualMachine } from "#vmm/virtual-machine.ts";
import { describeEnd, Worker } from "#vmm/worker.ts";

const root = join(import.meta.dir, "../..");
const folder = join(root, "tests/fixtures/bare-guest");
const flags = [
  ...["-m64", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pic"],
  ...["-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mno-red-zone"],
  ...["-mgeneral-regs-only", "-nostdlib", "-static", "-no-pie"],
  `-Wl,-T,${join(folder, "link.ld")},--build-id=none,-z,noexecstack,--no-warn-rwx-segments`,
];
/** What a guest may take for one line, on a busy machine. */
const LINE_TIMEOUT_MS = 30_000;
/** Any user; hako-vmm needs nothing that belongs to one. */
const USER_ID = 0x7fff_fff0;

/** Why bare-metal guests cannot run here, or undefined. */
export function bareGuestMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "hako-vmm's jail needs root";
  const { kind, detail } = probeKvm();
  return kind === "hardware" || kind === "pvm" ? undefined : detail;
}

/** The guest's ELF file; built once for each version of its sources. */
export function bareGuestPath(): string {
  const sources = readdirSync(folder).sort();
  const digest = Bun.hash(Buffer.concat(sources.map((name) => readFileSync(join(folder, name))))).toString(
    16,
  );
  const path = join(root, "dist/test", `bare-guest-${digest}`);
  if (existsSync(path)) return path;
  mkdirSync(join(root, "dist/test"), { recursive: true });
  const code = sources.filter((name) => /\.[cS]$/.test(name)).map((name) => join(folder, name));
  const fresh = `${path}.${process.pid}`;
  const { exitCode, stderr } = Bun.spawnSync(["gcc", ...flags, "-o", fresh, ...code]);
  if (exitCode !== 0) throw new Error(`The bare-metal guest cannot be built: ${stderr}`);
  renameSync(fresh, path);
  return path;
}

/** The parts of a machine that a snapshot describes. */
function recordOf(plan: MachinePlan): MachineRecord {
  const { create, memory, records, windows } = plan;
  return { create, memory, devices: records, windowCount: windows.length, driver: {} };
}

export interface BareOptions extends Partial<Omit<VmSpec, "kernelFd" | "kernelParams">> {
  /** Enters the guest by the 64-bit protocol instead of PVH. */
  readonly linux64?: boolean;
}

/** A machine with the guest, made and not started; its console line by line. */
export class BareMachine implements AsyncDisposable {
  readonly worker: Worker;
  readonly vm: VirtualMachine;
  /** Absent when it was restored. */
  readonly plan: MachinePlan | undefined;
  readonly #stack: DisposableStack;
  readonly #lines: string[] = [];
  #rest = "";
  #changed = Promise.withResolvers<void>();

  private constructor(
    worker: Worker,
    vm: VirtualMachine,
    plan: MachinePlan | undefined,
    stack: DisposableStack,
  ) {
    this.worker = worker;
    this.vm = vm;
    this.plan = plan;
    this.#stack = stack;
  }

  /** `words`: the guest's command line. */
  static async create(words: readonly string[], options: BareOptions = {}): Promise<BareMachine> {
    const machine = await BareMachine.empty((architecture, kvmFd, stack) => {
      const cpu = architecture.readHostCpu(kvmFd);
      const kernel = options.linux64
        ? withoutNote(readFileSync(bareGuestPath()))
        : readFileSync(bareGuestPath());
      const spec: VmSpec = {
        kernelFd: stack.use(memfd("bare-guest", kernel)).number,
        kernelParams: words,
        vcpus: 1,
        maxVcpus: options.vcpus ?? 1,
        memoryMib: 128,
        devices: [],
        freeWindows: 0,
        discovery: "acpi",
        ...options,
      };
      return planMachine(spec, architecture, cpu);
    });
    try {
      await machine.#create();
      return machine;
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      if ((error as HakoError).code !== "UNAVAILABLE") throw error;
      throw new Error(describeEnd(await machine.worker.exited, await machine.worker.messages()));
    }
  }

  /** Writes the paused machine into `dir`. */
  async save(dir: string): Promise<void> {
    if (!this.plan) throw new Error("a restored machine has no plan");
    const architecture = await hostArchitecture();
    const identity = this.plan.vcpus.map((vcpu) => architecture.identity(vcpu));
    const { vm, worker } = this;
    await saveMachine({ vm, identity, record: recordOf(this.plan), pid: worker.pid }, dir);
  }

  /** A machine from what `save` wrote, not yet running. `devices`: those of the saved one, with their new descriptors. */
  static async restore(dir: string, devices: readonly VmDevice[] = [], copy = false): Promise<BareMachine> {
    const architecture = await hostArchitecture();
    using kvm = openFd("/dev/kvm", O.RDWR);
    using snapshot = loadSnapshot(dir, architecture, architecture.readHostCpu(kvm.number), copy);
    const { machine } = snapshot.manifest;
    const windows = architecture.deviceWindows(machine.windowCount);
    const requests = machine.devices.map(({ slot, memory }, index) => {
      const [device, window] = [devices[index], windows[slot]];
      if (!device || !window) throw new Error("a device is missing");
      return [slot, encodeDevice(device, window, memory)] as const;
    });
    const restored = await BareMachine.empty(() => undefined);
    const id = crypto.getRandomValues(new Uint8Array(16));
    const generation = { ...architecture.generation, id };
    using console = restored.openConsole();
    try {
      await restored.vm.restore(
        { snapshot, devices: new Map(requests), copy, generation },
        kvm.number,
        console.number,
      );
      return restored;
    } catch (error) {
      await restored[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A worker that was told nothing yet. */
  static async empty(
    plan: (architecture: Architecture, kvmFd: number, stack: DisposableStack) => MachinePlan | undefined,
  ): Promise<BareMachine> {
    using stack = new DisposableStack();
    const directory = mkdtempSync(join(tmpdir(), "hako-bare-"));
    stack.defer(() => rmSync(directory, { recursive: true }));
    const socket = join(directory, "vmm.sock");
    using listener = unixListen(socket, "seqpacket");
    using kvm = openFd("/dev/kvm", O.RDWR);
    const planned = plan(await hostArchitecture(), kvm.number, stack);
    const worker = new Worker({ controlListener: listener.number, userId: USER_ID, environment: [] });
    stack.defer(() => worker.kill());
    const vm = stack.use(new VirtualMachine(await unixConnect(socket, undefined, "seqpacket")));
    return new BareMachine(worker, vm, planned, stack.move());
  }

  async #create(): Promise<void> {
    using kvm = openFd("/dev/kvm", O.RDWR);
    using console = this.openConsole();
    if (this.plan) await this.vm.create(this.plan, kvm.number, console.number);
  }

  /** The write end of the console, whose lines are read from now on. */
  openConsole() {
    const path = join(mkdtempSync(join(tmpdir(), "hako-bare-")), "console");
    this.#stack.defer(() => rmSync(join(path, ".."), { recursive: true }));
    const { reader, writer } = makeConsolePipe(path);
    const stop = new AbortController();
    this.#stack.defer(() => stop.abort());
    void readConsole(reader, (bytes) => this.#take(bytes), stop.signal);
    return writer;
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  /** The first line that begins with `start`, whether it came already or comes later; "FAIL" throws. */
  async line(start: string): Promise<string> {
    const find = () => this.#lines.find((line) => line.startsWith(start) || line.startsWith("FAIL"));
    const ended = this.worker.exited.then(() => Bun.sleep(200));
    const found = await withDeadline(LINE_TIMEOUT_MS, `see "${start}"`, async () => {
      for (;;) {
        const line = find();
        if (line !== undefined) return line;
        const outcome = await Promise.race([
          this.#changed.promise.then(() => "line"),
          ended.then(() => "end"),
        ]);
        if (outcome === "end" && find() === undefined) return `FAIL the machine ended: ${await this.#why()}`;
      }
    }).catch((error) => {
      throw new Error(`${error.message}; so far: ${this.#lines.join(" | ")}`);
    });
    if (found.startsWith("FAIL") && !start.startsWith("FAIL"))
      throw new Error(`${found}; ${this.#lines.join(" | ")}`);
    return found;
  }

  /** Starts the guest and waits until it says that it is done; all of its lines. */
  async run(): Promise<readonly string[]> {
    await this.vm.start();
    await this.line("done");
    return this.#lines;
  }

  async #why(): Promise<string> {
    return `${JSON.stringify(this.vm.exit, (_, value) => (typeof value === "bigint" ? String(value) : value))} ${await this.worker.messages()}`;
  }

  #take(bytes: Uint8Array): void {
    this.#rest += Buffer.from(bytes).toString("latin1");
    const lines = this.#rest.split("\n");
    this.#rest = lines.pop() ?? "";
    this.#lines.push(...lines);
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.worker.kill();
    await this.worker.exited;
    this.#stack.dispose();
  }
}

/** Makes the PVH note another one, so that the 64-bit entry is taken. */
function withoutNote(kernel: Buffer): Buffer {
  const at = kernel.indexOf("Xen\0", 0, "latin1");
  kernel.write("Not\0", at, "latin1");
  return kernel;
}
