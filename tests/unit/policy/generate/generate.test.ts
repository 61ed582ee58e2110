/** Policies that are written for a pod: what they allow, and what of a hostile host they refuse. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { requestInput } from "#agent/policy/request-input.ts";
import { toProtoProcess, toProtoSpec } from "#agent-client/spec.ts";
import { buildSpec, type ContainerOptions } from "#oci/spec-builder.ts";
import { AgentPolicy } from "#policy/agent-policy.ts";
import { generateFromImage, generateFromManifest } from "#policy/generate/generate.ts";
import {
  CopyFileRequest,
  CreateContainerRequest,
  CreateSandboxRequest,
  type DeepPartial,
  ExecProcessRequest,
} from "#proto/agent.ts";

const manifest = readFileSync(join(import.meta.dir, "../../../fixtures/policy/pod.yaml"), "utf8");
const image = { Entrypoint: ["/web"], Cmd: ["--default"], Env: ["IMAGE=yes"], WorkingDir: "/", User: "" };
const closed = { allowOutput: false, allowExec: false };
const generate = () =>
  generateFromManifest(manifest, (name) => (name === "registry.example/web:2" ? image : undefined), closed);

const run = "/run/kata-containers";

function rootStorages(id: string) {
  const dir = `${run}/${id}`;
  return [
    {
      driver: "blk",
      source: "/dev/disk/by-id/virtio-x",
      fstype: "erofs",
      options: ["ro", "nodev"],
      mountPoint: `${dir}/lower`,
    },
    {
      driver: "overlayfs",
      source: "overlay",
      fstype: "overlay",
      options: [`lowerdir=${dir}/lower`, `upperdir=${dir}/upper`, `workdir=${dir}/work`],
      mountPoint: `${dir}/rootfs`,
    },
  ];
}

const bind = (source: string, destination: string, ...options: string[]) => ({
  destination,
  source,
  type: "bind",
  options: ["rbind", ...options],
});

/** The request for the pod's server, as a well-behaved runtime makes it. */
function serverRequest(id = "server-1") {
  const options: ContainerOptions = {
    id,
    hostname: "web-1",
    rootPath: `${run}/${id}/rootfs`,
    readOnlyRoot: true,
    mounts: [
      bind(`${run}/shared/containers/${id}-hosts`, "/etc/hosts", "rw"),
      bind(`${run}/sandbox/local/scratch`, "/scratch", "rw"),
      bind(`${run}/shared/containers/${id}-volume-3`, "/etc/web", "ro"),
      bind(`${run}/${id}/volume-4`, "/data", "ro"),
    ],
    env: [
      "MODE=fast",
      "LEVEL=debug",
      "TOKEN=secret",
      "S_level=debug",
      "POD_IP=10.0.0.7",
      "WEB_SERVICE_HOST=10.1.2.3",
    ],
    command: ["--port", "80"],
    workingDir: "/srv",
    terminal: false,
    capAdd: ["NET_BIND_SERVICE"],
    capDrop: ["ALL"],
    noNewPrivileges: true,
  };
  const spec = toProtoSpec(buildSpec(image, options));
  if (spec.Process)
    spec.Process.User = { ...spec.Process.User, UID: 1000, GID: 100, AdditionalGids: [200], Username: "" };
  const volume = {
    driver: "blk",
    fstype: "erofs",
    options: ["ro", "nodev"],
    mountPoint: `${run}/${id}/volume-4`,
  };
  const scratch = {
    driver: "local",
    fstype: "local",
    options: ["mode=0777"],
    mountPoint: `${run}/sandbox/local/scratch`,
  };
  return CreateContainerRequest.fromPartial({
    containerId: id,
    OCI: spec,
    storages: [...rootStorages(id), volume, scratch],
  });
}

type Request = ReturnType<typeof serverRequest>;

function decide(policy: AgentPolicy, name: string, message: object): string {
  const decision = policy.decide(name, requestInput(name, message));
  return decision.allowed ? "allowed" : decision.denial.reason;
}

describe("a policy for a deployment", () => {
  const text = generate();

  test("allows the containers of the pod, each as often as it is started anew", () => {
    const policy = AgentPolicy.parse(text);
    expect(decide(policy, "CreateContainerRequest", serverRequest("a"))).toBe("allowed");
    expect(decide(policy, "CreateContainerRequest", serverRequest("b"))).toBe("allowed");
    expect(JSON.parse(policy.state)).toEqual({ pstate: { containers: { a: 2, b: 2 } } });
    expect(decide(policy, "CreateContainerRequest", serverRequest("a"))).not.toBe("allowed");
  });

  const spec = (request: Request) => request.OCI ?? fail();
  const process = (request: Request) => spec(request).Process ?? fail();
  const linux = (request: Request) => spec(request).Linux ?? fail();
  const addMount = (
    request: Request,
    source: string,
    destination: string,
    type = "bind",
    options = ["rbind", "ro"],
  ) => spec(request).Mounts.push({ destination, source, type, options, UIDMappings: [], GIDMappings: [] });
  const storageAt = (request: Request, index: number) => request.storages[index] ?? fail();

  /** What a hostile host might change. */
  const hostile: [what: string, change: (request: Request) => void][] = [
    ["another command", (r) => process(r).Args.push("--debug")],
    ["a variable", (r) => process(r).Env.push("LD_PRELOAD=/data/x.so")],
    [
      "another value of a variable",
      (r) => (process(r).Env = process(r).Env.map((e) => e.replace("MODE=fast", "MODE=slow"))),
    ],
    ["a pattern that is left", (r) => process(r).Env.push("POD_IP=10.0.0.7\nX=1")],
    ["another directory", (r) => (process(r).Cwd = "/tmp")],
    ["another user", (r) => (process(r).User = { UID: 0, GID: 100, AdditionalGids: [], Username: "" })],
    ["a further group", (r) => process(r).User?.AdditionalGids.push(0)],
    ["a user by name", (r) => (r.stringUser = { uid: "root", gid: "", additionalGids: [] })],
    ["a capability", (r) => process(r).Capabilities?.Effective.push("CAP_SYS_ADMIN")],
    ["new privileges", (r) => (process(r).NoNewPrivileges = false)],
    ["a terminal", (r) => (process(r).Terminal = true)],
    ["a writable root", (r) => (spec(r).Root = { Path: `${run}/server-1/rootfs`, Readonly: false })],
    ["another root", (r) => (spec(r).Root = { Path: `${run}/other/rootfs`, Readonly: true })],
    ["a namespace to join", (r) => linux(r).Namespaces.push({ Type: "pid", Path: "/proc/1/ns/pid" })],
    [
      "no mount namespace",
      (r) => (linux(r).Namespaces = linux(r).Namespaces.filter(({ Type }) => Type !== "mount")),
    ],
    [
      "a device",
      (r) =>
        linux(r).Devices.push({
          Path: "/dev/vda",
          Type: "b",
          Major: 254n,
          Minor: 0n,
          FileMode: 0o666,
          UID: 0,
          GID: 0,
        }),
    ],
    ["a sysctl", (r) => (linux(r).Sysctl = { "kernel.core_pattern": "|/x" })],
    ["an unmasked path", (r) => (linux(r).MaskedPaths = [])],
    [
      "a writable /proc/sys",
      (r) => (linux(r).ReadonlyPaths = linux(r).ReadonlyPaths.filter((path) => path !== "/proc/sys")),
    ],
    [
      "a mount at another place",
      (r) => addMount(r, `${run}/shared/containers/server-1-volume-9`, "/usr/bin"),
    ],
    ["the root of the guest", (r) => addMount(r, "/", "/data")],
    [
      "files of another container",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) =>
          m.destination === "/data" ? { ...m, source: `${run}/other/volume-4` } : m,
        )),
    ],
    [
      "a way out of the shared directory",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) =>
          m.destination === "/etc/web"
            ? { ...m, source: `${run}/shared/containers/server-1-volume-3/../..` }
            : m,
        )),
    ],
    [
      "a volume that becomes writable",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) =>
          m.destination === "/data" ? { ...m, options: ["rbind", "rw"] } : m,
        )),
    ],
    ["two mounts at one place", (r) => addMount(r, `${run}/shared/containers/server-1-volume-5`, "/etc/web")],
    [
      "a proc without protection",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) => (m.destination === "/proc" ? { ...m, options: [] } : m))),
    ],
    [
      "a proc from a directory",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) =>
          m.destination === "/proc" ? { ...m, type: "bind", source: `${run}/x` } : m,
        )),
    ],
    [
      "a writable sysfs",
      (r) =>
        (spec(r).Mounts = spec(r).Mounts.map((m) =>
          m.destination === "/sys" ? { ...m, options: ["nosuid", "noexec", "nodev", "ro", "rw"] } : m,
        )),
    ],
    ["a storage over the agent's files", (r) => (storageAt(r, 0).mountPoint = "/usr")],
    ["a storage at another container's root", (r) => (storageAt(r, 1).mountPoint = `${run}/other/rootfs`)],
    ["a path with dots", (r) => (storageAt(r, 0).mountPoint = `${run}/server-1/../../../etc`)],
    ["a root from a writable disk", (r) => (storageAt(r, 0).options = ["nodev"])],
    [
      "another lower layer",
      (r) =>
        (storageAt(r, 1).options = [
          "lowerdir=/etc",
          `upperdir=${run}/server-1/upper`,
          `workdir=${run}/server-1/work`,
        ]),
    ],
    ["an unknown driver", (r) => (storageAt(r, 0).driver = "virtio-fs")],
    ["a driver option", (r) => (storageAt(r, 0).driverOptions = ["encryption_key=ephemeral"])],
    ["two storages at one place", (r) => r.storages.push({ ...storageAt(r, 0) })],
    [
      "a hook",
      (r) =>
        (spec(r).Hooks = {
          Prestart: [],
          Poststart: [],
          Poststop: [],
          CreateRuntime: [],
          CreateContainer: [],
          StartContainer: [],
        }),
    ],
    [
      "a shared mount",
      (r) =>
        r.sharedMounts.push({ name: "x", srcCtr: "a", srcPath: "/", dstCtr: "b", dstPath: "/" } as never),
    ],
    ["a strange id", (r) => (r.containerId = "../x")],
    ["an id that is a pattern", (r) => (r.containerId = "server.1")],
    ["streams by ports", (r) => (r.stdoutPort = 7)],
  ];
  for (const [what, change] of hostile) {
    test(`refuses ${what}`, () => {
      const policy = AgentPolicy.parse(text);
      const request = serverRequest();
      change(request);
      expect(decide(policy, "CreateContainerRequest", request)).not.toBe("allowed");
      expect(policy.state).toBe('{"pstate":{}}');
    });
  }

  test("allows the commands of probes in their container, and no others", () => {
    const policy = AgentPolicy.parse(text);
    const exec = (containerId: string, Args: string[], change: DeepPartial<ExecProcessRequest> = {}) => {
      const request = serverRequest();
      const given = { ...process(request), Args };
      return decide(
        policy,
        "ExecProcessRequest",
        ExecProcessRequest.fromPartial({ containerId, execId: "e", process: given, ...change } as never),
      );
    };
    expect(exec("server-1", ["cat", "/healthy"])).not.toBe("allowed");
    expect(decide(policy, "CreateContainerRequest", serverRequest())).toBe("allowed");
    expect(exec("server-1", ["cat", "/healthy"])).toBe("allowed");
    expect(exec("server-1", ["sh"])).not.toBe("allowed");
    expect(exec("other", ["cat", "/healthy"])).not.toBe("allowed");
    const root = toProtoProcess({ args: ["cat", "/healthy"], cwd: "/srv", user: { uid: 0, gid: 0 } });
    expect(exec("server-1", [], { process: root })).not.toBe("allowed");
  });

  test("keeps streams, files, clock and sandbox within bounds", () => {
    const policy = AgentPolicy.parse(text);
    for (const name of [
      "ReadStreamRequest",
      "WriteStreamRequest",
      "SetPolicyRequest",
      "UpdateContainerRequest",
      "AddSwapRequest",
    ]) {
      expect(decide(policy, name, {})).not.toBe("allowed");
    }
    expect(decide(policy, "SetGuestDateTimeRequest", {})).toBe("allowed");
    expect(decide(policy, "SetGuestDateTimeRequest", {})).not.toBe("allowed");
    const copy = (path: string, fileMode: number, data = "") =>
      decide(
        policy,
        "CopyFileRequest",
        CopyFileRequest.fromPartial({ path, fileMode, data: Buffer.from(data) }),
      );
    const shared = `${run}/shared/containers`;
    expect(copy(`${shared}/a/b`, 0o100644)).toBe("allowed");
    expect(copy(`${shared}/a/..data`, 0o120777, "..2026")).toBe("allowed");
    for (const path of ["/etc/passwd", `${shared}/../x`, `${shared}x/y`, shared])
      expect(copy(path, 0o100644)).not.toBe("allowed");
    for (const target of ["/etc", "../../x", "a/../../.."])
      expect(copy(`${shared}/l`, 0o120777, target)).not.toBe("allowed");
    expect(copy(`${shared}/d`, 0o060660)).not.toBe("allowed");
    const sandbox = (change: object) =>
      decide(policy, "CreateSandboxRequest", CreateSandboxRequest.fromPartial(change));
    const shm = {
      driver: "ephemeral",
      fstype: "tmpfs",
      options: ["noexec", "size=64m"],
      mountPoint: `${run}/sandbox/shm`,
    };
    expect(sandbox({ hostname: "x", storages: [shm] })).toBe("allowed");
    expect(sandbox({ guestHookPath: "/hooks" })).not.toBe("allowed");
    expect(sandbox({ kernelModules: [{ name: "x" }] })).not.toBe("allowed");
    expect(sandbox({ storages: [{ ...shm, mountPoint: "/etc" }] })).not.toBe("allowed");
  });
});

describe("what no policy can be written for", () => {
  const bad: [what: string, text: string, message: string][] = [
    ["no YAML", "a: [", "it is no YAML"],
    ["no workload", "kind: Service\n", "it has no workload"],
    [
      "two workloads",
      "kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: b}\n",
      "choose one by --pod: Pod/a, Pod/b",
    ],
    ["no containers", "kind: Pod\nspec: {}\n", '"spec.containers" is not a list of containers'],
    [
      "an unknown entry point",
      "kind: Pod\nspec: {containers: [{name: c, image: i}]}\n",
      "give the image by --image i=oci:DIR",
    ],
    [
      "an unknown volume",
      "kind: Pod\nspec: {containers: [{name: c, image: i, command: [x], volumeMounts: [{name: v, mountPath: /v}]}]}\n",
      "is not a volume of the pod",
    ],
    [
      "a volume of an unknown kind",
      "kind: Pod\nspec: {volumes: [{name: v, nfs: {}}], containers: [{name: c, image: i, command: [x], volumeMounts: [{name: v, mountPath: /v}]}]}\n",
      'of kind "nfs"',
    ],
    [
      "a missing secret",
      "kind: Pod\nspec: {containers: [{name: c, image: i, command: [x], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}\n",
      "put Secret/s into the same file",
    ],
    [
      "text in the place of a list",
      "kind: Pod\nspec: {containers: [{name: c, image: i, command: x}]}\n",
      '"spec.containers[0].command" is not a list',
    ],
  ];
  for (const [what, text, message] of bad) {
    test(what, () => {
      expect(() => generateFromManifest(text, () => undefined, closed)).toThrow(message);
    });
  }

  test("a named user", () => {
    const text = "kind: Pod\nspec: {containers: [{name: c, image: i}]}\n";
    expect(() => generateFromManifest(text, () => ({ Entrypoint: ["x"], User: "nobody" }), closed)).toThrow(
      "give its number by securityContext.runAsUser",
    );
  });
});

test("a policy for an image allows what hako run makes of it", () => {
  const text = generateFromImage(image, {
    ...closed,
    allowOutput: true,
    command: ["--port", "1"],
    env: ["A=1"],
    volumes: [{ guestPath: "/data", readOnly: true }],
    terminal: false,
    stdin: true,
  });
  const policy = AgentPolicy.parse(text);
  const options = {
    id: "c1",
    hostname: "h",
    rootPath: `${run}/c1/rootfs`,
    readOnlyRoot: false,
    mounts: [
      bind(`${run}/c1/volume-0`, "/data", "rprivate", "ro"),
      bind(`${run}/shared/containers/c1-hosts`, "/etc/hosts", "rw"),
    ],
    env: ["A=1"],
    command: ["--port", "1"],
    terminal: false,
    capAdd: [],
    capDrop: [],
    noNewPrivileges: false,
  };
  const request = (change: object) =>
    CreateContainerRequest.fromPartial({
      containerId: "c1",
      OCI: toProtoSpec(buildSpec(image, { ...options, ...change })),
      storages: rootStorages("c1"),
      stringUser: { uid: "", gid: "" },
    });
  expect(decide(policy, "CreateContainerRequest", request({ command: ["--port", "2"] }))).not.toBe("allowed");
  expect(decide(policy, "CreateContainerRequest", request({ capAdd: ["SYS_ADMIN"] }))).not.toBe("allowed");
  expect(decide(policy, "CreateContainerRequest", request({}))).toBe("allowed");
  expect(decide(policy, "ReadStreamRequest", {})).toBe("allowed");
  expect(decide(policy, "WriteStreamRequest", { containerId: "c1" })).toBe("allowed");
  expect(decide(policy, "WriteStreamRequest", { containerId: "c2" })).not.toBe("allowed");
});

function fail(): never {
  throw new Error("the request is not as expected");
}
