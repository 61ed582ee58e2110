import { toProtoSpec } from "#agent-client/spec.ts";
import type { AgentServiceDefinition } from "#proto/agent.ts";
import { rootStorages } from "./agent-process.ts";
import { plainSpec } from "./runtime-case.ts";

export type AgentCall = keyof typeof AgentServiceDefinition.methods;

/**
 * One good request of each call that a machine survives being asked anything by: not those that set its clock, plug
 * memory, swap to a disk, forbid all that follows, or end the agent.
 */
export async function sampleRequests(
  runDirectory: string,
): Promise<readonly (readonly [AgentCall, object])[]> {
  const id = { containerId: "f1", execId: "e1" };
  const path = (name: string) => `${runDirectory}/${name}`;
  const spec = plainSpec();
  spec.process.args = ["sleep", "1000"];
  spec.process.env = ["PATH=/bin"];
  spec.linux.resources = { devices: [{ allow: false }] };
  const limits = toProtoSpec({
    ...spec,
    linux: { resources: { pids: { limit: 10 }, unified: { "pids.max": "9" } } },
  }).Linux?.Resources;
  spec.linux.seccomp = {
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: [{ names: ["mkdir"], action: "SCMP_ACT_ERRNO" }],
  };
  spec.linux.sysctl = { "net.ipv4.ip_forward": "1" };
  spec.linux.devices = [{ path: "/dev/x", type: "c", major: 1, minor: 3 }];
  spec.process.rlimits = [{ type: "RLIMIT_CORE", soft: 0, hard: 0 }];
  const storages = [
    {
      driver: "ephemeral",
      fstype: "tmpfs",
      source: "tmpfs",
      mountPoint: path("volume/m"),
      options: ["size=64k"],
    },
    { driver: "local", mountPoint: path("volume/l"), options: ["mode=0700"] },
    ...(await rootStorages(path("f1"))),
  ];
  const oci = toProtoSpec({ ...spec, root: { path: path("f1/rootfs") } });
  const address = { family: 0, address: "192.0.2.1", mask: "24" };
  return [
    [
      "createContainer",
      { ...id, storages, OCI: oci, devices: [{ type: "blk", id: "02/00", containerPath: "/dev/x" }] },
    ],
    ["createContainer", { ...id, storages, OCI: oci, stringUser: { uid: "user", gid: "5" } }],
    ["startContainer", id],
    ["removeContainer", { ...id, timeout: 1 }],
    ["execProcess", { ...id, process: oci.Process }],
    ["signalProcess", { ...id, signal: 15 }],
    ["updateContainer", { ...id, resources: limits }],
    ["updateEphemeralMounts", { storages: storages.slice(0, 1) }],
    ["statsContainer", id],
    ["pauseContainer", id],
    ["resumeContainer", id],
    ["removeStaleVirtiofsShareMounts", {}],
    ["getDiagnosticData", { logType: "termination_log", ...id }],
    ["writeStdin", { ...id, data: Buffer.from("data") }],
    ["closeStdin", id],
    ["ttyWinResize", { ...id, row: 24, column: 80 }],
    [
      "updateInterface",
      {
        interface: {
          device: "lo",
          name: "lo",
          IPAddresses: [address],
          mtu: 1500n,
          hwAddr: "02:00:00:00:00:01",
        },
      },
    ],
    [
      "updateRoutes",
      { routes: { Routes: [{ dest: "198.51.100.0/24", gateway: "192.0.2.2", device: "lo", scope: 0 }] } },
    ],
    ["listInterfaces", {}],
    ["listRoutes", {}],
    [
      "addARPNeighbors",
      {
        neighbors: {
          ARPNeighbors: [{ toIPAddress: address, device: "lo", lladdr: "02:00:00:00:00:02", state: 128 }],
        },
      },
    ],
    ["memAgentMemcgSet", { disabled: true, swappinessMax: 3 }],
    ["memAgentCompactSet", { disabled: true, compactOrder: 3 }],
    [
      "createSandbox",
      { hostname: "box", dns: ["nameserver 192.0.2.1"], sandboxId: "s", kernelModules: [{ name: "x" }] },
    ],
    ["getGuestDetails", { memBlockSize: true }],
    [
      "copyFile",
      {
        path: path("shared/containers/a/b"),
        fileSize: 4n,
        fileMode: 0o100644,
        dirMode: 0o755,
        data: Buffer.from("data"),
      },
    ],
    ["getVolumeStats", { volumeGuestPath: path("shared") }],
    ["resizeVolume", { volumeGuestPath: path("volume/m"), size: 65536n }],
  ];
}
