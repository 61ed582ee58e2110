import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentChannel, Hypervisor, Machine, MachineSpec, RestoreSpec } from "#hypervisor/hypervisor.ts";
import { claimGuestCid } from "#linux/vhost-vsock.ts";
import { O, openFd } from "#sys/fd.ts";
import { unixListen } from "#sys/socket.ts";
import { contractInitramfs, GuestChannel, kernelPath } from "../support/contract-guest.ts";

/** A driver in one of its forms, as the suite runs it. */
export interface ContractSubject {
  /** Heads the suite's tests: `QEMU microvm`. */
  readonly name: string;
  make(): Hypervisor;
  readonly machineType?: string;
  readonly agent: AgentChannel["kind"];
  /** KiB that the flood case prints; 256, four times what is kept, where a character does not cost milliseconds. */
  readonly floodKib?: number;
  /** Cases that this form cannot pass, by name, each with the reason that is printed. */
  readonly skips?: Readonly<Record<string, string>>;
}

const AGENT_PORT = 1024;

/** Everything around one machine: its directory, kernel, agent channel; all gone after disposal. */
export class MachineFixture implements AsyncDisposable {
  readonly hypervisor: Hypervisor;
  readonly runDir = mkdtempSync(join(tmpdir(), "hako-contract-"));
  readonly spec: MachineSpec;
  readonly #resources: DisposableStack;
  #machine: Machine | undefined;
  #restore: RestoreSpec | undefined;
  #guest: GuestChannel | undefined;

  private constructor(subject: ContractSubject, initramfs: string, changes: Partial<MachineSpec>) {
    using stack = new DisposableStack();
    stack.defer(() => rmSync(this.runDir, { recursive: true, force: true }));
    this.hypervisor = subject.make();
    const { agent, params } = openAgent(subject, this.runDir, stack);
    this.spec = {
      id: "contract",
      runDir: this.runDir,
      ...(subject.machineType === undefined ? {} : { machineType: subject.machineType }),
      kernelFd: stack.use(openFd(kernelPath, O.RDONLY)).number,
      initrdFd: stack.use(openFd(initramfs, O.RDONLY)).number,
      kernelParams: ["quiet", params],
      vcpus: 1,
      memoryMib: 128,
      devices: [],
      agent,
      ...changes,
    };
    this.#resources = stack.move();
  }

  static async make(subject: ContractSubject, changes: Partial<MachineSpec> = {}): Promise<MachineFixture> {
    return new MachineFixture(subject, await contractInitramfs(), changes);
  }

  /** A machine that is restored from what `Machine.save` wrote. */
  static async restored(
    subject: ContractSubject,
    snapshotDir: string,
    memory: RestoreSpec["memory"],
    devices: MachineSpec["devices"] = [],
  ): Promise<MachineFixture> {
    const fixture = await MachineFixture.make(subject);
    const { id, runDir, agent } = fixture.spec;
    fixture.#restore = { id, runDir, snapshotDir, agent, devices, memory };
    return fixture;
  }

  /** The machine, created at the first call. */
  async machine(signal?: AbortSignal): Promise<Machine> {
    this.#machine ??= await (this.#restore
      ? this.hypervisor.restore(this.#restore, signal)
      : this.hypervisor.create(this.spec, signal));
    return this.#machine;
  }

  /** The running machine's guest. */
  async boot(): Promise<GuestChannel> {
    const machine = await this.machine();
    await machine.start();
    const guest = await this.connect();
    await guest.request("echo up");
    return guest;
  }

  /** The agent channel, whether or not the guest serves it already. */
  async connect(): Promise<GuestChannel> {
    this.#guest ??= await this.#open();
    return this.#guest;
  }

  #open(): Promise<GuestChannel> {
    const { agent } = this.spec;
    const path = join(this.runDir, "agent.sock");
    if (agent.kind === "vsock") return GuestChannel.overVsock(agent.cid, AGENT_PORT);
    if (agent.kind === "hybrid-vsock") return GuestChannel.overHybridVsock(path, AGENT_PORT);
    return GuestChannel.overSerial(path);
  }

  /** A file in the run directory's neighbourhood, for a disk. */
  file(name: string, bytes: Uint8Array): { path: string; readOnlyFd: number; writableFd: number } {
    const path = join(this.runDir, name);
    writeFileSync(path, bytes);
    const open = (flags: number) => this.#resources.use(openFd(path, flags)).number;
    return { path, readOnlyFd: open(O.RDONLY), writableFd: open(O.RDWR) };
  }

  /** What the driver has left in the run directory, and processes that know of it. */
  leftovers(): string[] {
    const own = new Set(["agent.sock"]);
    const files = readdirSync(this.runDir).filter((name) => !own.has(name) && !name.endsWith(".disk"));
    return [...files, ...processesOf(this.runDir)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#guest?.[Symbol.dispose]();
    await this.#machine?.stop();
    this.#resources.dispose();
  }
}

function openAgent(
  subject: ContractSubject,
  runDir: string,
  stack: DisposableStack,
): { agent: AgentChannel; params: string } {
  if (subject.agent === "vsock") {
    const { cid, vhost } = stack.use(claimGuestCid());
    const params = `agent.server_addr=vsock://-1:${AGENT_PORT}`;
    return { agent: { kind: "vsock", cid, vhostFd: vhost.number }, params };
  }
  const path = join(runDir, "agent.sock");
  const listener = stack.use(unixListen(path));
  if (subject.agent === "hybrid-vsock") {
    const params = `agent.server_addr=vsock://-1:${AGENT_PORT}`;
    return { agent: { kind: "hybrid-vsock", cid: 3, path, listenerFd: listener.number }, params };
  }
  return {
    agent: { kind: "serial", portName: "hako.agent", listenerFd: listener.number },
    params: "agent.server_addr=virtio-serial://hako.agent",
  };
}

/** Processes other than this one that have the path in their environment or command line. */
function processesOf(path: string): string[] {
  const mentions = (pid: string) => {
    try {
      return ["environ", "cmdline"].some((name) =>
        readFileSync(`/proc/${pid}/${name}`, "latin1").includes(path),
      );
    } catch {
      return false;
    }
  };
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  return pids.filter(mentions).map((pid) => `process ${pid}`);
}
