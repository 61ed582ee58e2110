import { withDeadline } from "#base/deadline.ts";
import { HakoError } from "#base/error.ts";
import { abortable } from "#base/mutex.ts";
import type { BlockSpec, DeviceSpec, NetworkSpec, ShareSpec } from "#hypervisor/hypervisor.ts";
import {
  blockDevice,
  blockNode,
  frontendId,
  netdevId,
  networkDevice,
  shareChardev,
  shareDevice,
} from "./device-argument.ts";
import type { Inventory, PluggedDevice } from "./inventory.ts";
import type { MachineType } from "./machine-type.ts";
import { type QmpClient, QmpError } from "./qmp.ts";
import { openVhostNet } from "./vhost-net.ts";

/** How long a guest may take to let go of a device. */
const UNPLUG_TIMEOUT_MS = 20_000;

/** Plugs devices into a running QEMU and out of it. Calls must not overlap. */
export class Hotplug {
  readonly #qmp: QmpClient;
  readonly #type: MachineType;
  readonly #inventory: Inventory;

  constructor(qmp: QmpClient, type: MachineType, inventory: Inventory) {
    this.#qmp = qmp;
    this.#type = type;
    this.#inventory = inventory;
  }

  /** Its few commands take milliseconds and run to the end, so that it is always known what QEMU has. */
  async attach(spec: DeviceSpec): Promise<void> {
    await using undo = new AsyncDisposableStack();
    const device = this.#inventory.add(spec);
    undo.defer(() => this.#inventory.remove(spec.id));
    if (spec.kind === "block") await this.#attachBlock(device, spec, undo);
    else if (spec.kind === "network") await this.#attachNetwork(device, spec, undo);
    else await this.#attachShare(device, spec, undo);
    undo.move();
  }

  async detach(id: string, signal?: AbortSignal): Promise<void> {
    const device = this.#inventory.find(id);
    if (!device) throw new HakoError("NOT_FOUND", `Cannot detach device "${id}": there is none`);
    await unplug(this.#qmp, frontendId(id), signal);
    if (device.spec.kind === "block") await this.#removeBlock(device);
    else if (device.spec.kind === "network") await this.#qmp.execute("netdev_del", { id: netdevId(id) });
    else await this.#qmp.execute("chardev-remove", { id: shareChardev(id) });
    this.#inventory.remove(id);
  }

  async #attachBlock(device: PluggedDevice, spec: BlockSpec, undo: AsyncDisposableStack): Promise<void> {
    const { backend, frontend } = blockDevice(this.#type, spec, device.fdset, device.slot);
    await this.#qmp.execute("add-fd", { "fdset-id": device.fdset }, { fds: [spec.fd] });
    undo.defer(() => this.#quietly("remove-fd", { "fdset-id": device.fdset }));
    await this.#qmp.execute("blockdev-add", backend);
    undo.defer(() => this.#quietly("blockdev-del", { "node-name": blockNode(device.fdset) }));
    await this.#qmp.execute("device_add", frontend);
  }

  async #removeBlock(device: PluggedDevice): Promise<void> {
    await this.#qmp.execute("blockdev-del", { "node-name": blockNode(device.fdset) });
    await this.#qmp.execute("remove-fd", { "fdset-id": device.fdset });
  }

  async #attachNetwork(device: PluggedDevice, spec: NetworkSpec, undo: AsyncDisposableStack): Promise<void> {
    using vhost = openVhostNet(spec.tapFds.length);
    const handles = {
      tap: await this.#give(`tap-${spec.id}`, spec.tapFds, undo),
      vhost: await this.#give(`vhost-${spec.id}`, vhost.fds, undo),
    };
    const { backend, frontend } = networkDevice(this.#type, spec, handles, device.slot);
    await this.#qmp.execute("netdev_add", backend);
    undo.defer(() => this.#quietly("netdev_del", { id: netdevId(spec.id) }));
    await this.#qmp.execute("device_add", frontend);
  }

  async #attachShare(device: PluggedDevice, spec: ShareSpec, undo: AsyncDisposableStack): Promise<void> {
    const id = shareChardev(spec.id);
    const addr = { type: "unix", data: { path: spec.socketPath } };
    const backend = { type: "socket", data: { addr, server: false } };
    await this.#qmp.execute("chardev-add", { id, backend });
    undo.defer(() => this.#quietly("chardev-remove", { id }));
    await this.#qmp.execute("device_add", shareDevice(this.#type, spec, device.slot));
  }

  /** Gives QEMU descriptors under names, which the command that uses them takes away. */
  async #give(prefix: string, fds: readonly number[], undo: AsyncDisposableStack): Promise<string[]> {
    const names: string[] = [];
    for (const [index, fd] of fds.entries()) {
      const fdname = `${prefix}-${index}`;
      await this.#qmp.execute("getfd", { fdname }, { fds: [fd] });
      undo.defer(() => this.#quietly("closefd", { fdname }));
      names.push(fdname);
    }
    return names;
  }

  /** An undo step: what cannot be undone because it was not there, or because QEMU is gone, is undone. */
  async #quietly(command: string, args: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#qmp.execute(command, args).catch(() => {});
  }
}

/**
 * Has the guest let go of a device and waits until QEMU has removed it. DEADLINE_EXCEEDED when it does
 * not, ABORTED when it says that it will not. A device that went away since an earlier try is fine.
 */
async function unplug(qmp: QmpClient, id: string, signal?: AbortSignal): Promise<void> {
  using end = qmp.expect(
    ({ name, data }) =>
      (name === "DEVICE_DELETED" || name === "DEVICE_UNPLUG_GUEST_ERROR") && data.device === id,
  );
  if ((await requestUnplug(qmp, id, signal)) === "gone") return;
  const { name } = await withDeadline(
    UNPLUG_TIMEOUT_MS,
    `unplug "${id}"`,
    (either) => abortable(end.event, either),
    signal,
  );
  if (name !== "DEVICE_DELETED") throw new HakoError("ABORTED", `Cannot unplug "${id}": the guest refused`);
}

async function requestUnplug(qmp: QmpClient, id: string, signal?: AbortSignal): Promise<"gone" | "asked"> {
  try {
    await qmp.execute("device_del", { id }, { signal });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    if (error.errorClass === "DeviceNotFound") return "gone";
    if (!(await isPresent(qmp, id))) return "gone";
    // QEMU refuses a second request while the first one is pending; then the event is still to come.
  }
  return "asked";
}

async function isPresent(qmp: QmpClient, id: string): Promise<boolean> {
  return qmp.execute("qom-list", { path: `/machine/peripheral/${id}` }).then(
    () => true,
    () => false,
  );
}
