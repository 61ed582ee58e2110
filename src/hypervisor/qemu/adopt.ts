import { HakoError } from "#base/error.ts";
import { ConsoleLog } from "#hypervisor/console-log.ts";
import type { AdoptedMachine, AdoptSpec, DeviceSpec, ProcessState } from "#hypervisor/hypervisor.ts";
import { readConsole, reopenConsolePipe } from "#linux/console-pipe.ts";
import { type Fd, O, openFd } from "#sys/fd.ts";
import { openProcess, pidfdSendSignal, waitPidfd } from "#sys/process.ts";
import { unixConnect } from "#sys/socket.ts";
import { CONSOLE_PIPE, CONTROL_SOCKET } from "./channels.ts";
import { Inventory, type PluggedDevice } from "./inventory.ts";
import { QemuMachine } from "./machine.ts";
import type { MachineType } from "./machine-type.ts";
import type { MonitorProcess, ProcessExit } from "./process.ts";
import { QmpClient } from "./qmp.ts";

const SIGKILL = 9;
/** Where QEMU keeps devices that have an id. */
const PERIPHERAL = "/machine/peripheral";
const FRONTEND = /^device-([a-z0-9-]{1,32})$/;

/**
 * Takes over a QEMU whose manager died: its control socket takes a new connection once the old one is gone, its console is
 * a named pipe, and it says itself which devices it has. Throws NOT_FOUND when it has ended, UNAVAILABLE when it does not
 * answer.
 */
export async function adoptMachine(
  driver: string,
  type: MachineType,
  spec: AdoptSpec,
  signal?: AbortSignal,
): Promise<AdoptedMachine> {
  const { state } = spec;
  const [identity] = state.processes;
  const pidfd = identity && openProcess(identity.pid, identity.startTime);
  if (!identity || !pidfd) throw new HakoError("NOT_FOUND", `Machine "${state.id}" does not run any more`);
  using undo = new DisposableStack();
  undo.use(pidfd);
  using directory = openFd(state.runDir, O.PATH | O.DIRECTORY);
  const path = `/proc/self/fd/${directory.number}`;
  const qmp = undo.adopt(new QmpClient(await unixConnect(`${path}/${CONTROL_SOCKET}`, signal)), (client) =>
    client.close(),
  );
  await qmp.negotiate(signal);
  const inventory = new Inventory(type);
  const devices = await readDevices(qmp, type);
  for (const device of devices) inventory.restore(device);
  const { running } = (await qmp.execute("query-status", {}, { signal })) as { running?: boolean };
  const console = new ConsoleLog();
  const consoleStop = new AbortController();
  const reader = reopenConsolePipe(`${path}/${CONSOLE_PIPE}`);
  const consoleEnded = readConsole(reader, (bytes) => console.append(bytes), consoleStop.signal);
  undo.move();
  const { vcpus, memoryMib } = spec;
  const machine = new QemuMachine(
    {
      driver,
      spec: { id: state.id, runDir: state.runDir, vcpus, memoryMib },
      type,
      process: new AdoptedProcess(identity, pidfd),
      qmp,
      inventory,
      console,
      consoleEnded,
      closeConsole: () => consoleStop.abort(),
    },
    running ? "running" : "paused",
  );
  return { machine, devices: devices.map((device) => device.spec) };
}

/** A QEMU that is no child of ours: its exit code stays unknown, and its last words went to nobody. */
class AdoptedProcess implements MonitorProcess {
  readonly state: ProcessState;
  readonly exited: Promise<ProcessExit>;
  readonly #pidfd: Fd;

  constructor(state: ProcessState, pidfd: Fd) {
    this.state = state;
    this.#pidfd = pidfd;
    this.exited = waitPidfd(pidfd.number).then(() => {
      pidfd.close();
      return { code: null, signal: null };
    });
  }

  kill(): void {
    if (this.#pidfd.number >= 0) pidfdSendSignal(this.#pidfd.number, SIGKILL);
  }

  async messages(): Promise<string> {
    await this.exited;
    return "";
  }
}

/** What sits on the bus, as hako named it when it was put there. */
async function readDevices(qmp: QmpClient, type: MachineType): Promise<PluggedDevice[]> {
  const entries = (await qmp.execute("qom-list", { path: PERIPHERAL })) as { name?: string }[];
  const ids = entries.flatMap(({ name }) => FRONTEND.exec(name ?? "")?.[1] ?? []);
  return Promise.all(ids.map((id) => readDevice(qmp, type, id)));
}

async function readDevice(qmp: QmpClient, type: MachineType, id: string): Promise<PluggedDevice> {
  const path = `${PERIPHERAL}/device-${id}`;
  const find = (property: string) => qmp.execute("qom-get", { path, property }).catch(() => undefined);
  const names = ["drive", "serial", "mac", "addr", "tag"];
  const [drive, serial, mac, address, tag] = await Promise.all(names.map(find));
  const fdset = Number(/^block(\d+)$/.exec(String(drive))?.[1] ?? 0);
  const spec = adoptedSpec(id, { serial, mac, tag });
  // A number on the bus: slot and function, 5 and 3 bits. Without PCI there is no such property.
  const { deviceBus: bus } = type;
  if (typeof address !== "number" || address < 0 || bus === undefined) return { spec, fdset };
  return { spec, fdset, slot: { bus, slot: address >> 3 } };
}

/** What tells the kinds apart: only a network device has a MAC address, only a share a tag. */
function adoptedSpec(id: string, found: { serial: unknown; mac: unknown; tag: unknown }): DeviceSpec {
  const { serial, mac, tag } = found;
  if (tag !== undefined) return { kind: "share", id, tag: String(tag), socketPath: "" };
  if (mac !== undefined) return { kind: "network", id, tapFds: [], macAddress: String(mac) };
  return { kind: "block", id, serial: String(serial), fd: -1, readOnly: true };
}
