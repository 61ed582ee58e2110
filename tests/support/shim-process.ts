/** A shim without containerd: bundles, the words that containerd would say, and its calls. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Spec } from "#oci/runtime-spec.ts";
import { EventsDefinition } from "#proto/containerd/event-service.ts";
import { SandboxDefinition } from "#proto/containerd/sandbox.ts";
import { TaskDefinition } from "#proto/containerd/task.ts";
import { socketStream } from "#sys/byte-stream.ts";
import { unixConnect } from "#sys/socket.ts";
import { createClient, type ServiceClient, TtrpcClient } from "#ttrpc/client.ts";
import { serveUnix } from "#ttrpc/listener.ts";
import { TtrpcServer } from "#ttrpc/server.ts";
import { HakoHost, hakoBinary, type Outcome } from "./hako-host.ts";
import { busyboxImage } from "./images.ts";

const NAMESPACE = "test";
const TASK_V3 = { ...TaskDefinition, fullName: "containerd.task.v3.Task" } as const;

/** Calls to one shim. */
export interface ShimCalls extends Disposable {
  readonly task: ServiceClient<typeof TaskDefinition>;
  readonly taskV3: ServiceClient<typeof TaskDefinition>;
  readonly sandbox: ServiceClient<typeof SandboxDefinition>;
  readonly client: TtrpcClient;
}

export class ShimHost implements Disposable {
  readonly hako = new HakoHost();
  /** Topics as they came, with the exec or container id behind. */
  readonly events: string[] = [];
  readonly #program = join(this.hako.dir, "containerd-shim-hako-v2");
  readonly #eventSocket = join(this.hako.dir, "events.sock");
  #events: Disposable | undefined;

  constructor() {
    symlinkSync(hakoBinary, this.#program);
  }

  get env(): Record<string, string> {
    return { ...this.hako.env, TTRPC_ADDRESS: this.#eventSocket };
  }

  /** Takes events from now on, as containerd would. */
  serveEvents(): void {
    const server = new TtrpcServer();
    server.register(EventsDefinition, {
      forward: ({ envelope }) => {
        this.events.push(envelope?.topic ?? "");
        return {};
      },
    });
    const serving = serveUnix(server, this.#eventSocket);
    this.#events = {
      [Symbol.dispose]() {
        serving[Symbol.dispose]();
        server.close();
      },
    };
  }

  stopEvents(): void {
    this.#events?.[Symbol.dispose]();
    this.#events = undefined;
  }

  /** A bundle whose process runs a shell script; `change` has the last word about its configuration. */
  async bundle(
    id: string,
    script: string,
    change: (config: Spec) => unknown = (config) => config,
  ): Promise<string> {
    const dir = join(this.hako.dir, "bundles", id);
    mkdirSync(dir, { recursive: true });
    const rootfs = (await busyboxImage("rootfs")).slice("rootfs:".length);
    const config: Spec = {
      ociVersion: "1.0.2",
      process: {
        user: { uid: 0, gid: 0 },
        args: ["sh", "-c", script],
        env: ["PATH=/bin:/usr/bin"],
        cwd: "/",
      },
      root: { path: rootfs },
      hostname: "box",
      mounts: [
        { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
        {
          destination: "/dev",
          type: "tmpfs",
          source: "tmpfs",
          options: ["nosuid", "mode=755", "size=65536k"],
        },
      ],
      linux: { namespaces: [{ type: "pid" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }] },
    };
    const changed = change(config);
    writeFileSync(join(dir, "config.json"), typeof changed === "string" ? changed : JSON.stringify(changed));
    return dir;
  }

  /** Runs the shim's program with a word of containerd's. */
  async run(id: string, bundle: string, word: string, env: Record<string, string> = {}): Promise<Outcome> {
    const words = ["-namespace", NAMESPACE, "-id", id, "-address", "/run/test.sock", "-publish-binary", "x"];
    const child = Bun.spawn([this.#program, ...words, "-bundle", bundle, word], {
      cwd: bundle,
      env: { ...this.env, ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    return { code, stdout, stderr };
  }

  /** Starts a shim and connects to it. */
  async start(id: string, bundle: string): Promise<ShimCalls> {
    const { code, stdout, stderr } = await this.run(id, bundle, "start");
    if (code !== 0) throw new Error(`start ended with ${code}: ${stderr}`);
    return connectShim(stdout);
  }

  [Symbol.dispose](): void {
    this.stopEvents();
    this.hako[Symbol.dispose]();
  }
}

export async function connectShim(address: string): Promise<ShimCalls> {
  const client = new TtrpcClient(await socketStream(await unixConnect(address.replace("unix://", ""))));
  return {
    client,
    task: createClient(TaskDefinition, client),
    taskV3: createClient(TASK_V3, client) as unknown as ServiceClient<typeof TaskDefinition>,
    sandbox: createClient(SandboxDefinition, client),
    [Symbol.dispose]: () => client.close(),
  };
}
