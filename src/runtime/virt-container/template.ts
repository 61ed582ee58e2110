import { statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { HakoError } from "#base/error.ts";
import { randomId } from "#base/id.ts";
import { hypervisorConfig } from "#config/config.ts";
import type { Hypervisor } from "#hypervisor/hypervisor.ts";
import { chooseHypervisor } from "#hypervisor/registry.ts";
import { type Assets, ensureAssets } from "#resource/asset.ts";
import type { HandlerContext } from "#runtime/handler.ts";
import type { SandboxSpec } from "#runtime/sandbox.ts";
import { templateKey } from "#runtime/template/template-key.ts";
import { type Template, TemplateStore } from "#runtime/template/template-store.ts";
import { Timeline } from "#runtime/timeline.ts";
import { logger } from "#telemetry/log.ts";
import { kernelParams, type MachinePlan, machineType, planMachine } from "./machine-plan.ts";
import { practise } from "./practice.ts";

const log = logger("template");

/** What a machine that shall be a clone would boot from. */
export interface TemplateRequest {
  readonly hypervisor: Hypervisor;
  readonly assets: Assets;
  readonly plan: MachinePlan;
}

/** Where templates are kept. */
export function openTemplateStore(stateDir: string): TemplateStore {
  return new TemplateStore(join(stateDir, "template"));
}

/**
 * The template to clone such a machine from, made now if there is none yet. Undefined when it cannot be made, which is
 * logged: the machine can boot then. Throws CANCELLED.
 */
export async function provideTemplate(
  request: TemplateRequest,
  context: HandlerContext,
  signal?: AbortSignal,
): Promise<Template | undefined> {
  try {
    return await findOrMake(request, context, signal);
  } catch (error) {
    if (signal?.aborted) throw new HakoError("CANCELLED", "Cancelled", { cause: error });
    log.warn("there is no template, the machine boots", { error });
    return undefined;
  }
}

/**
 * Finds or makes the template for sandboxes of a size. Throws FAILED_PRECONDITION where the monitor cannot save machines
 * or the configuration wants no clones, and why the template could not be made.
 */
export async function prepareTemplate(
  size: Pick<SandboxSpec, "hypervisor" | "vcpus" | "memoryMib">,
  context: HandlerContext,
  signal?: AbortSignal,
): Promise<Template> {
  const { config, paths } = context;
  if (config.runtime.template === "off") {
    throw new HakoError(
      "FAILED_PRECONDITION",
      'The configuration wants no clones: "runtime.template" is "off"',
    );
  }
  const [assets, { hypervisor }] = await Promise.all([
    ensureAssets(paths.stateDir, signal),
    chooseHypervisor(size.hypervisor ?? config.runtime.hypervisorName, config),
  ]);
  const plan = planMachine(templateSandbox(size), config);
  const type = machineType(templateSandbox(size), config, hypervisor.name);
  if (!hypervisor.capabilities({ machineType: type }).has("snapshot")) {
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot make a template: "${hypervisor.name}" cannot save machines`,
    );
  }
  return await findOrMake({ hypervisor, assets, plan }, context, signal);
}

async function findOrMake(
  request: TemplateRequest,
  context: HandlerContext,
  signal?: AbortSignal,
): Promise<Template> {
  const { hypervisor, plan } = request;
  const { size } = plan;
  const key = findKey(request, context);
  const store = openTemplateStore(context.paths.stateDir);
  const found = await store.find(key);
  if (found) return found;
  const record = { key, driver: hypervisor.name, ...size };
  const spec = templateSandbox({ hypervisor: hypervisor.name, size });
  const build = (dir: string) => makeTemplate(dir, spec, context, signal);
  return await context.timeline.measure("template", store.make(record, build, signal));
}

function findKey({ hypervisor, assets, plan }: TemplateRequest, { config }: HandlerContext): string {
  const { kernel } = hypervisorConfig(config, hypervisor.name);
  const status = kernel === "" ? undefined : statSync(kernel, { throwIfNoEntry: false });
  return templateKey({
    driver: hypervisor.name,
    assets: basename(dirname(assets.guestImagePath)),
    kernel: status ? `${kernel} ${status.size} ${status.mtimeMs}` : kernel,
    kernelParams: kernelParams("", templateSandbox({}), config, hypervisor.name),
    ...plan.size,
  });
}

/** Boots a machine of its own, lets its agent practise, and saves it to `dir`. */
async function makeTemplate(
  dir: string,
  spec: SandboxSpec,
  context: HandlerContext,
  signal?: AbortSignal,
): Promise<void> {
  const { VirtContainerHandler } = await import("./handler.ts");
  const handler = new VirtContainerHandler({ ...context, timeline: new Timeline() });
  await using sandbox = await handler.createSandbox(spec, signal);
  await sandbox.start(signal);
  await practise(sandbox, context.paths.stateDir, signal);
  await sandbox.save(dir, signal);
}

/** The sandbox that a template is saved from; nothing of what it is called stays in the template. */
function templateSandbox(
  size: Pick<SandboxSpec, "hypervisor" | "vcpus" | "memoryMib" | "size">,
): SandboxSpec {
  const id = randomId();
  return {
    id,
    name: `template-${id.slice(0, 12)}`,
    hostname: "template",
    ...size,
    network: "none",
    detached: false,
    autoRemove: true,
    timing: false,
    cloning: "practice",
  };
}
