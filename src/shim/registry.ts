import type { ShimContext, ShimService } from "./service.ts";

/** A service and when it is loaded. */
export interface ServiceEntry {
  readonly name: string;
  /** By the first call of one of these ttrpc services, or when the sandbox runs. */
  readonly use: readonly string[] | "sandbox";
  load(context: ShimContext): Promise<ShimService>;
}

/** Every service of a shim. */
export const SERVICES: readonly ServiceEntry[] = [
  {
    name: "task",
    use: ["containerd.task.v2.Task", "containerd.task.v3.Task"],
    load: async (context) => new (await import("./service/task.ts")).TaskService(context),
  },
  {
    name: "sandbox",
    use: ["containerd.runtime.sandbox.v1.Sandbox"],
    load: async (context) => new (await import("./service/sandbox.ts")).SandboxService(context),
  },
  {
    name: "monitor",
    use: "sandbox",
    load: async (context) => new (await import("./service/monitor.ts")).MonitorService(context),
  },
];
