import { HakoError } from "#base/error.ts";
import type { MachineSpec, RestoreSpec } from "#hypervisor/hypervisor.ts";
import type { Template } from "#runtime/template/template-store.ts";
import { logger } from "#telemetry/log.ts";
import { Guest, type GuestOptions } from "./guest.ts";

const log = logger("sandbox");

/** What a machine is launched with, whether it boots or is a clone. */
export interface LaunchRequest extends Omit<GuestOptions, "machine"> {
  readonly boot: MachineSpec;
  /** Absent: the machine boots. */
  readonly template?: Template;
  readonly memory: RestoreSpec["memory"];
  /** Ids of the devices that every machine has, and so every template. */
  readonly commonDevices: ReadonlySet<string>;
  /** Gets rid of a template that no machine can be cloned from. */
  forget(template: Template): Promise<void>;
}

export interface Launched {
  readonly guest: Guest;
  /** The machine has only `commonDevices`. */
  readonly cloned: boolean;
}

/** Clones the template, or boots; a template that turns out to be damaged or not to fit is forgotten, with a warning. */
export async function launchGuest(request: LaunchRequest, signal?: AbortSignal): Promise<Launched> {
  const { boot, template } = request;
  if (template) {
    try {
      return {
        guest: await Guest.start({ ...request, machine: cloneSpec(request, template) }, signal),
        cloned: true,
      };
    } catch (error) {
      if (signal?.aborted || !isTemplatesFault(error)) throw error;
      log.warn("a template is of no use, the machine boots", { template: template.key, error });
      await request.forget(template);
    }
  }
  return { guest: await Guest.start({ ...request, machine: boot }, signal), cloned: false };
}

function cloneSpec({ boot, memory, commonDevices }: LaunchRequest, template: Template): RestoreSpec {
  const { id, runDir, agent, devices } = boot;
  const own = devices.filter((device) => commonDevices.has(device.id));
  return { id, runDir, agent, snapshotDir: template.dir, devices: own, memory };
}

function isTemplatesFault(error: unknown): boolean {
  return error instanceof HakoError && (error.code === "DATA_LOSS" || error.code === "FAILED_PRECONDITION");
}
