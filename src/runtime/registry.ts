import { HakoError } from "#base/error.ts";
import type { HandlerContext, RuntimeHandler } from "./handler.ts";

type Factory = (context: HandlerContext) => Promise<RuntimeHandler>;

/** Every runtime handler by its name; a kind that nobody asks for is not loaded. */
const FACTORIES: ReadonlyMap<string, Factory> = new Map<string, Factory>([
  [
    "virt_container",
    async (context) => new (await import("./virt-container/handler.ts")).VirtContainerHandler(context),
  ],
  [
    "linux_container",
    async (context) => new (await import("./linux-container/handler.ts")).LinuxContainerHandler(context),
  ],
]);

/** Throws NOT_FOUND for an unknown name. */
export async function lookupHandler(name: string, context: HandlerContext): Promise<RuntimeHandler> {
  const factory = FACTORIES.get(name);
  if (factory) return factory(context);
  throw new HakoError(
    "NOT_FOUND",
    `Unknown runtime handler "${name}": there is ${[...FACTORIES.keys()].join(", ")}`,
  );
}
