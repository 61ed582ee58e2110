import type { AgentClient } from "#agent-client/client.ts";

type Agent = AgentClient["agent"];
type Request = Parameters<Agent["createContainer"]>[0];

/** Where requests for an agent in a guest put everything. */
const GUEST_DIRECTORY = "/run/kata-containers";

/**
 * An agent of a host that takes requests made for one in a guest: paths below the guest's run directory lead to the
 * agent's own, disks to the loop devices that stand for them. Everything else, as words of the container's command
 * line, is left as it is.
 */
export function relocateAgent(
  agent: Agent,
  runDirectory: string,
  findDevice: (guestPath: string) => string | undefined,
): Agent {
  const path = (text: string) =>
    text.startsWith(`${GUEST_DIRECTORY}/`) ? runDirectory + text.slice(GUEST_DIRECTORY.length) : text;
  // overlay's lowerdir= and the like hold paths, several of them set apart by colons.
  const option = (text: string) =>
    text.replace(/(^\w+=|:)(\/run\/kata-containers\/[^:]*)/g, (_all, before, found) => before + path(found));
  const storage = (given: NonNullable<Request["storages"]>[number]) => ({
    ...given,
    source: findDevice(given.source ?? "") ?? path(given.source ?? ""),
    mountPoint: path(given.mountPoint ?? ""),
    options: (given.options ?? []).map(option),
  });
  return {
    ...agent,
    createSandbox: (request, options) =>
      agent.createSandbox({ ...request, storages: (request.storages ?? []).map(storage) }, options),
    createContainer(request, options) {
      const { OCI, storages = [], devices = [] } = request;
      const relocated = {
        ...request,
        storages: storages.map(storage),
        devices: devices.map((device) => ({
          ...device,
          vmPath: findDevice(device.vmPath ?? "") ?? device.vmPath ?? "",
        })),
        ...(OCI && {
          OCI: {
            ...OCI,
            ...(OCI.Root && { Root: { ...OCI.Root, Path: path(OCI.Root.Path ?? "") } }),
            Mounts: (OCI.Mounts ?? []).map((mount) => ({ ...mount, source: path(mount.source ?? "") })),
          },
        }),
      };
      return agent.createContainer(relocated, options);
    },
    copyFile: (request, options) => agent.copyFile({ ...request, path: path(request.path ?? "") }, options),
  };
}
