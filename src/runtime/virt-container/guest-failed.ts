import { type ErrorCode, HakoError } from "#base/error.ts";
import type { MachineExit } from "#hypervisor/hypervisor.ts";

/** The guest, or the machine around it, is to blame; what it printed last may say why. */
export class GuestFailed extends HakoError {
  /** Without control characters. */
  readonly consoleTail: string;

  constructor(code: ErrorCode, message: string, consoleTail: string, cause?: unknown) {
    super(code, message, cause === undefined ? {} : { cause });
    this.consoleTail = consoleTail;
  }
}

/** The error for a machine that ended under its sandbox. */
export function machineEnded(exit: MachineExit): GuestFailed {
  return new GuestFailed(
    "UNAVAILABLE",
    `The virtual machine ended: ${lowerFirst(exit.detail)}`,
    exit.consoleTail,
  );
}

/** The beginning of a sentence within another; names such as QEMU stay as they are. */
function lowerFirst(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}
