import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AgentClient, connectAgent } from "#agent-client/client.ts";
import { toProtoSpec } from "#agent-client/spec.ts";
import type { BlockSpec, Machine, MachineSpec } from "#hypervisor/hypervisor.ts";
import { QemuHypervisor } from "#hypervisor/qemu/hypervisor.ts";
import { buildGuestImage } from "#image/guest-image.ts";
import { packDirectory } from "#image/pack-directory.ts";
import { buildSpec, type ContainerOptions } from "#oci/spec-builder.ts";
import type { CreateContainerRequest, DeepPartial } from "#proto/agent.ts";
import type { Spec } from "#proto/oci.ts";
import { O, openFd } from "#sys/fd.ts";
import { unixListen } from "#sys/socket.ts";
import { busyboxImage, busyboxMissing } from "./images.ts";

const checkout = join(import.meta.dir, "../..");
/** The built executable and its parts; HAKO_TEST_BINARY names another executable. */
const executable = process.env.HAKO_TEST_BINARY ?? join(checkout, "dist/hako");
const kernel = join(checkout, "dist/kernel/vmlinux");
const initrd = process.env.HAKO_TEST_INITRD ?? join(checkout, "dist/guest/initrd");
/** The C library as the guest has it. */
const libraries = existsSync(join(checkout, "dist/guest"))
  ? readdirSync(join(checkout, "dist/guest")).filter((name) => name.includes(".so"))
  : [];
const ROOT_SERIAL = "rootfs";
const PORT = "hako.agent";
/** Emulation is slow, and several tests may run at once. */
const BOOT_TIMEOUT_MS = 90_000;

/** Why the agent cannot be run in a virtual machine here; undefined when it can. */
export function agentMachineMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (!Bun.which("qemu-system-x86_64")) return "needs qemu-system-x86_64";
  const file = [executable, kernel, initrd].find((path) => !existsSync(path));
  if (file) return `needs ${file}, build it with "bun build.ts binary"`;
  return busyboxMissing();
}

/** A guest with hako's own kernel, image and agent under QEMU (TCG), and a disk with busybox as rootfs of containers. */
export class AgentMachine implements AsyncDisposable {
  readonly client: AgentClient;
  readonly machine: Machine;
  readonly #stack: AsyncDisposableStack;
  #containers = 0;

  private constructor(client: AgentClient, machine: Machine, stack: AsyncDisposableStack) {
    this.client = client;
    this.machine = machine;
    this.#stack = stack;
  }

  static async boot(changes: Partial<MachineSpec> = {}): Promise<AgentMachine> {
    await using stack = new AsyncDisposableStack();
    const directory = mkdtempSync(join(tmpdir(), "hako-vm-"));
    stack.defer(async () => rmSync(directory, { recursive: true, force: true }));
    chmodSync(directory, 0o700);
    const open = (path: string) => stack.use(openFd(path, O.RDONLY)).number;
    const socket = join(directory, "agent.sock");
    const disk = (serial: string, path: string): BlockSpec => {
      return { kind: "block", id: serial, serial, fd: open(path), readOnly: true };
    };
    const spec: MachineSpec = {
      id: "agent",
      runDir: directory,
      kernelFd: open(kernel),
      initrdFd: open(initrd),
      vcpus: 1,
      memoryMib: 192,
      agent: { kind: "serial", portName: PORT, listenerFd: stack.use(unixListen(socket)).number },
      ...changes,
      kernelParams: [`agent.server_addr=virtio-serial://${PORT}`, ...(changes.kernelParams ?? ["quiet"])],
      devices: [
        disk("hako-guest", await guestImage(join(directory, "guest.erofs"))),
        disk("hako-exe", executable),
        disk(ROOT_SERIAL, await rootImage(join(directory, "rootfs.erofs"))),
        ...(changes.devices ?? []),
      ],
    };
    const machine = stack.use(await new QemuHypervisor({ accelerator: "tcg" }).create(spec));
    await machine.start();
    const options = { gone: machine.exited, timeoutMs: BOOT_TIMEOUT_MS };
    const client = await connectAgent({ kind: "serial", path: socket }, options).catch((error) => {
      throw new Error(`No agent; the console says:\n${machine.consoleTail()}`, { cause: error });
    });
    stack.use(client);
    return new AgentMachine(client, machine, stack.move());
  }

  get agent(): AgentClient["agent"] {
    return this.client.agent;
  }

  /** Creates and starts a container that runs a script on the busybox disk; its id. */
  async run(
    script: string,
    options: Partial<ContainerOptions> = {},
    change: (request: { spec: Spec; request: DeepPartial<CreateContainerRequest> }) => void = () => {},
  ): Promise<string> {
    const id = options.id ?? `c${++this.#containers}`;
    const base = `/run/kata-containers/${id}`;
    const spec = toProtoSpec(
      buildSpec(
        {},
        {
          id,
          hostname: "",
          rootPath: `${base}/rootfs`,
          readOnlyRoot: false,
          mounts: [],
          env: [],
          command: ["sh", "-c", script],
          terminal: false,
          capAdd: [],
          capDrop: [],
          noNewPrivileges: false,
          ...options,
        },
      ),
    );
    const source = `/dev/disk/by-id/virtio-${ROOT_SERIAL}`;
    const overlay = [`lowerdir=${base}/lower`, `upperdir=${base}/upper`, `workdir=${base}/work`];
    const request: DeepPartial<CreateContainerRequest> = {
      containerId: id,
      OCI: spec,
      storages: [
        { driver: "blk", source, fstype: "erofs", options: ["ro"], mountPoint: `${base}/lower` },
        {
          driver: "overlayfs",
          source: "overlay",
          fstype: "overlay",
          options: overlay,
          mountPoint: `${base}/rootfs`,
        },
      ],
    };
    change({ spec, request });
    await this.agent.createContainer(request);
    await this.agent.startContainer({ containerId: id });
    return id;
  }

  /** All output of a container's first process, and its exit code. */
  async collect(containerId: string): Promise<{ stdout: string; code: number }> {
    const chunks: Uint8Array[] = [];
    for (;;) {
      const { data } = await this.agent.readStdout({ containerId, len: 1 << 16 });
      if (data.length === 0) break;
      chunks.push(data);
    }
    const { status } = await this.agent.waitProcess({ containerId });
    return { stdout: Buffer.concat(chunks).toString(), code: status };
  }

  /** A number of the agent's metrics. */
  async metric(name: string): Promise<number> {
    const { metrics } = await this.agent.getMetrics({});
    const line = metrics.split("\n").find((text) => text.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

async function guestImage(path: string): Promise<string> {
  const read = (name: string) => readFileSync(join(checkout, "dist/guest", name));
  const files = libraries.map((name) => {
    return { path: `${name.startsWith("ld-") ? "lib64" : "lib"}/${name}`, bytes: read(name) };
  });
  const output = openSync(path, "wx+");
  await buildGuestImage({ files, executable: { path: executable }, output });
  closeSync(output);
  return path;
}

async function rootImage(path: string): Promise<string> {
  const reference = await busyboxImage("rootfs");
  const output = openSync(path, "wx+");
  await packDirectory(reference.slice("rootfs:".length), output);
  closeSync(output);
  return path;
}
