/** A part of the time between the start of the program and now, in milliseconds since that start. */
export interface Phase {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** Where the time of a start goes. Costs next to nothing, so it is always kept. */
export class Timeline {
  readonly #phases: Phase[] = [];
  #last = 0;

  get phases(): readonly Phase[] {
    return this.#phases;
  }

  /** Ends the phase that began with the end of the one before. */
  mark(name: string): void {
    const now = performance.now();
    this.add({ name, startMs: this.#last, endMs: now });
  }

  /** Times work that may overlap with other work. */
  async measure<T>(name: string, work: Promise<T>): Promise<T> {
    const startMs = performance.now();
    try {
      return await work;
    } finally {
      this.add({ name, startMs, endMs: performance.now() });
    }
  }

  /** The start of a guest whose agent has answered just now, as far as its console tells about it. */
  addGuestStart(consoleText: string, bootMs: number): void {
    const phases = parseGuestPhases(consoleText, bootMs);
    for (const phase of phases) this.add(phase);
    this.add({ name: "agent answers", startMs: phases.at(-1)?.endMs ?? bootMs, endMs: performance.now() });
  }

  add(phase: Phase): void {
    this.#phases.push(phase);
    this.#last = Math.max(this.#last, phase.endMs);
  }
}

/** `hako.timing <event> <nanoseconds of CLOCK_MONOTONIC>`, one line each on the guest's console. */
const GUEST_LINE = /hako\.timing ([a-z0-9-]{1,40}) (\d{1,18})\s*$/gm;

/** What ends with an event that hako-init reports. */
const GUEST_PHASES: Readonly<Record<string, string>> = {
  "init-start": "kernel",
  "root-mounted": "init mounts",
  "agent-started": "init starts agent",
};

/**
 * The phases that the guest has reported. Its clock starts with its kernel, at `bootMs` of ours, which makes them a
 * little early; a phase lasts from the event before it to its own.
 */
export function parseGuestPhases(consoleText: string, bootMs: number): Phase[] {
  const phases: Phase[] = [];
  let startMs = bootMs;
  for (const [, event = "", nanoseconds = "0"] of consoleText.matchAll(GUEST_LINE)) {
    const endMs = bootMs + Number(nanoseconds) / 1e6;
    phases.push({ name: GUEST_PHASES[event] ?? event, startMs, endMs });
    startMs = endMs;
  }
  return phases;
}
