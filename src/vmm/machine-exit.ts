import { EXIT } from "./wire.ts";
import type { ExitEvent } from "./wire-format.ts";

/** Who ended the machine: its guest by its own wish, its guest by a fault, or the monitor, which could not go on. */
export type ExitKind = "guest-off" | "guest-reset" | "guest-crash" | "monitor-error";

export interface ExitCause {
  readonly kind: ExitKind;
  /** One sentence for a person. */
  readonly detail: string;
}

const causes: ReadonlyMap<number, readonly [ExitKind, string]> = new Map([
  [EXIT.EXIT_POWER_OFF, ["guest-off", "The guest powered off"]],
  [EXIT.EXIT_RESET, ["guest-reset", "The guest reset itself"]],
  [EXIT.EXIT_TRIPLE_FAULT, ["guest-crash", "The guest ended by a triple fault"]],
  [EXIT.EXIT_KVM_ERROR, ["monitor-error", "KVM cannot run the guest any further"]],
  [
    EXIT.EXIT_MEMORY_FAULT,
    [
      "monitor-error",
      "Memory of the guest cannot be read: a file behind it became shorter, or the host has none left",
    ],
  ],
  [EXIT.EXIT_WORKER_FAULT, ["monitor-error", "hako-vmm cannot go on"]],
]);

/** What an exit event says, in words; its own text goes behind. */
export function describeExit({ reason, vcpu, detail, text }: ExitEvent): ExitCause {
  const [kind, sentence] = causes.get(reason) ?? ["monitor-error", `hako-vmm ended for reason ${reason}`];
  if (kind === "guest-off" || kind === "guest-reset") return { kind, detail: sentence };
  const where = ` (vCPU ${vcpu}, detail ${detail})`;
  return { kind, detail: text === "" ? sentence + where : `${sentence}: ${text}${where}` };
}
