import { HakoError } from "#base/error.ts";
import { ConsoleLog } from "#hypervisor/console-log.ts";
import { readConsole } from "#linux/console-pipe.ts";
import { VirtualMachine } from "#vmm/virtual-machine.ts";
import { describeEnd, Worker } from "#vmm/worker.ts";
import { makeMachineCgroup, removeMachineCgroup } from "./cgroup.ts";
import { openChannels, removeChannelFiles } from "./channels.ts";
import { RUN_DIR_VARIABLE } from "./leftover.ts";
import { nextUserId } from "./user-id.ts";

export interface LaunchRequest {
  readonly id: string;
  readonly runDir: string;
  /** All that there can ever be. */
  readonly vcpus: number;
  /** Tells a new hako-vmm what to be; `consoleFd` takes the serial port's output. */
  fill(vm: VirtualMachine, consoleFd: number): Promise<void>;
}

/** A hako-vmm that has been told what to be, and what belongs to it; whoever gets it takes it over. */
export interface Launched {
  readonly worker: Worker;
  readonly vm: VirtualMachine;
  readonly console: ConsoleLog;
  readonly consoleEnded: Promise<void>;
  /** Ends the reading of the console. */
  readonly closeConsole: () => void;
  /** Removes what belongs to the machine outside of its process. */
  readonly removeTraces: () => void;
}

/** Starts hako-vmm and fills it. On failure nothing is left behind. */
export async function launch(request: LaunchRequest, signal?: AbortSignal): Promise<Launched> {
  const { id, runDir } = request;
  await using undo = new AsyncDisposableStack();
  const channels = undo.use(await openChannels(runDir, signal));
  const console = new ConsoleLog();
  const consoleStop = new AbortController();
  const closeConsole = () => consoleStop.abort();
  const append = (bytes: Uint8Array) => console.append(bytes);
  const consoleEnded = readConsole(channels.consoleReader, append, consoleStop.signal);
  undo.defer(closeConsole);
  const vm = undo.use(new VirtualMachine(channels.control));
  using cgroup = makeMachineCgroup(id, request.vcpus);
  undo.defer(() => removeMachineCgroup(id));
  const worker = new Worker({
    controlListener: channels.controlListener.number,
    userId: nextUserId(),
    environment: [`${RUN_DIR_VARIABLE}=${runDir}`],
    ...(cgroup ? { cgroup: cgroup.number } : {}),
  });
  undo.defer(async () => {
    worker.kill();
    await worker.exited;
  });
  channels.controlListener.close();
  await explained(worker, request.fill(vm, channels.consoleWriter.number));
  channels.consoleWriter.close();
  undo.move();
  const removeTraces = () => {
    removeChannelFiles(runDir);
    removeMachineCgroup(id);
  };
  return { worker, vm, console, consoleEnded, closeConsole, removeTraces };
}

/** When hako-vmm ends instead of answering, its own words say why. */
async function explained(worker: Worker, filling: Promise<void>): Promise<void> {
  try {
    await filling;
  } catch (error) {
    if (HakoError.from(error).code !== "UNAVAILABLE") throw error;
    worker.kill();
    throw new HakoError("UNAVAILABLE", describeEnd(await worker.exited, await worker.messages()));
  }
}
