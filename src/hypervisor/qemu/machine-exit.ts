import type { MachineExit } from "#hypervisor/hypervisor.ts";
import type { ProcessExit } from "./process.ts";
import type { QmpEvent } from "./qmp.ts";

/** Run states in which QEMU has given up on a machine by itself (qapi/run-state.json of QEMU). */
const failedStates: readonly string[] = ["internal-error", "io-error", "guest-panicked", "watchdog"];

/** Gathers what QEMU tells until its end and then says why the machine ended. */
export class ExitCause {
  #panicked = false;
  #guestShutdown: string | undefined;
  #failure: string | undefined;
  #stopped = false;

  observe(event: QmpEvent): void {
    if (event.name === "GUEST_PANICKED") this.#panicked = true;
    if (event.name === "SHUTDOWN" && event.data.guest === true) {
      this.#guestShutdown = String(event.data.reason);
    }
  }

  /** The machine stopped without being asked to; true when it cannot go on from there. */
  observeRunState(status: string): boolean {
    if (!failedStates.includes(status)) return false;
    this.#failure ??= status;
    return true;
  }

  stopRequested(): void {
    this.#stopped = true;
  }

  /** `messages` is what QEMU wrote to its standard error. */
  describe(exit: ProcessExit, messages: string): Pick<MachineExit, "reason" | "detail"> {
    if (this.#panicked) return { reason: "guest-panic", detail: "The guest kernel panicked" };
    if (this.#guestShutdown !== undefined) {
      const detail =
        this.#guestShutdown === "guest-reset" ? "The guest reset itself" : "The guest powered off";
      return { reason: "guest-shutdown", detail };
    }
    if (this.#failure !== undefined) {
      return { reason: "monitor-error", detail: withMessages(`QEMU stopped: ${this.#failure}`, messages) };
    }
    if (this.#stopped) return { reason: "stopped", detail: "Stopped" };
    return { reason: "monitor-died", detail: describeProcessExit(exit, messages) };
  }
}

/** `QEMU ended with exit code 1: cannot set up guest memory …`. */
export function describeProcessExit(exit: ProcessExit, messages: string): string {
  if (exit.signal !== null) return withMessages(`QEMU ended by signal ${exit.signal}`, messages);
  return withMessages(exit.code === null ? "QEMU ended" : `QEMU ended with exit code ${exit.code}`, messages);
}

function withMessages(text: string, messages: string): string {
  return messages === "" ? text : `${text}: ${messages}`;
}
