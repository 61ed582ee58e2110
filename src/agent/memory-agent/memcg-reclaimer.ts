import { readFlatKeyed } from "#linux/cgroup/v2/control-file.ts";
import { findStatus } from "#linux/file.ts";
import { E } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscallBlocking } from "#sys/syscall.ts";
import { PeriodicTask } from "./periodic-task.ts";
import { PressureGauge } from "./pressure.ts";

/** Kata's settings with its defaults (facts of its `mem_agent` configuration). */
export interface MemcgSettings {
  readonly disabled: boolean;
  /** Memory of programs may go to swap, too; else only files leave memory. */
  readonly swap: boolean;
  /** 0 to 200; how much rather programs' memory than files', where the kernel lets one say. */
  readonly swappinessMax: number;
  readonly periodSecs: number;
  /** With more pressure in a period, in percent, nothing is taken back in it. */
  readonly periodPsiPercentLimit: number;
  /** Taking back ends when it makes more pressure than this. */
  readonly evictionPsiPercentLimit: number;
  /** Quiet periods that a container must have behind it. */
  readonly evictionRunAgingCountMin: number;
}

export const defaultMemcgSettings: MemcgSettings = {
  disabled: true,
  swap: false,
  swappinessMax: 50,
  periodSecs: 600,
  periodPsiPercentLimit: 1,
  evictionPsiPercentLimit: 1,
  evictionRunAgingCountMin: 3,
};

const FILE = "memory.reclaim";
/** One write: long enough to be worth it, short enough to notice pressure. */
const STEP_BYTES = 32n << 20n;

/** Writes to memory.reclaim; the kernel's answer, 0 or -errno. */
async function reclaim(directory: string, text: string): Promise<number> {
  using file = openFd(`${directory}/${FILE}`, O.WRONLY);
  const bytes = Buffer.from(text);
  return await syscallBlocking(SYS.write, file.number, bytes, bytes.length);
}

/**
 * Takes memory that containers have not used for some time back from them, so that the guest has it for others and
 * the host by way of the balloon (Documentation/admin-guide/cgroup-v2.rst, memory.reclaim, Linux 5.19).
 */
export class MemcgReclaimer implements Disposable {
  readonly #cgroups: () => readonly string[];
  readonly #task = new PeriodicTask("take memory back from containers", () => this.run());
  /** Quiet periods in a row, by cgroup directory. */
  readonly #quiet = new Map<string, number>();
  #settings = defaultMemcgSettings;
  #gauge = new PressureGauge();
  #takesSwappiness = true;

  /** `cgroups` names the directories of all containers now. */
  constructor(cgroups: () => readonly string[]) {
    this.#cgroups = cgroups;
  }

  get settings(): MemcgSettings {
    return this.#settings;
  }

  set(settings: MemcgSettings): void {
    this.#settings = settings;
    this.#gauge = new PressureGauge();
    if (settings.disabled) this.#task.stop();
    else this.#task.start(settings.periodSecs);
  }

  /** One period's work; the bytes that it asked back. */
  async run(): Promise<void> {
    const calm = this.#gauge.look() <= this.#settings.periodPsiPercentLimit;
    const present = new Set(this.#cgroups());
    for (const known of this.#quiet.keys()) if (!present.has(known) || !calm) this.#quiet.delete(known);
    if (!calm) return;
    for (const directory of present) {
      const quiet = (this.#quiet.get(directory) ?? 0) + 1;
      this.#quiet.set(directory, quiet);
      if (quiet < this.#settings.evictionRunAgingCountMin) continue;
      if (!(await this.#evict(directory))) return;
    }
  }

  /** False when it made too much pressure. */
  async #evict(directory: string): Promise<boolean> {
    if (!findStatus(`${directory}/${FILE}`)) return true;
    const stat = readFlatKeyed(directory, "memory.stat");
    const anonymous = this.#settings.swap ? (stat.get("inactive_anon") ?? 0n) : 0n;
    const gauge = new PressureGauge();
    for (let left = (stat.get("inactive_file") ?? 0n) + anonymous; left > 0n; left -= STEP_BYTES) {
      const done = await this.#step(directory, left < STEP_BYTES ? left : STEP_BYTES);
      if (gauge.look() > this.#settings.evictionPsiPercentLimit) return false;
      if (!done) return true;
    }
    return true;
  }

  /** False when there is nothing more to take, or the cgroup has gone. */
  async #step(directory: string, bytes: bigint): Promise<boolean> {
    const swappiness = this.#settings.swap ? this.#settings.swappinessMax : 0;
    if (this.#takesSwappiness) {
      const result = await reclaim(directory, `${bytes} swappiness=${swappiness}`);
      if (result !== -E.EINVAL) return result >= 0;
      // Linux before 6.11 takes the amount alone; it then swaps as vm.swappiness says.
      this.#takesSwappiness = false;
    }
    return (await reclaim(directory, String(bytes))) >= 0;
  }

  [Symbol.dispose](): void {
    this.#task[Symbol.dispose]();
  }
}
