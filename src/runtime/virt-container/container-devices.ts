import type { DeviceManager } from "#device/device-manager.ts";
import type { ContainerResources } from "./container-resources.ts";

/**
 * Gives a container's disks and shares to the machine, or plans them for one that is to be made; their ids. `unplug`
 * is deferred for each in `release`.
 */
export async function attachDevices(
  devices: DeviceManager,
  resources: Pick<ContainerResources, "disks" | "shares">,
  {
    release,
    unplug,
  }: { readonly release: AsyncDisposableStack; readonly unplug: (id: string) => Promise<void> },
  signal?: AbortSignal,
): Promise<string[]> {
  const ids: string[] = [];
  const note = ({ id }: { readonly id: string }) => {
    ids.push(id);
    release.defer(() => unplug(id));
  };
  for (const disk of resources.disks) {
    note(await devices.addDisk({ ...disk, readOnly: disk.readOnly ?? true }, signal));
  }
  for (const share of resources.shares) note(await devices.addShare(share, signal));
  return ids;
}
