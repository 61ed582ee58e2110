import { findText } from "#linux/file.ts";
import { check } from "#sys/errno.ts";
import { O, openFd } from "#sys/fd.ts";
import { SYS, syscallBlocking } from "#sys/syscall.ts";
import { PeriodicTask } from "./periodic-task.ts";
import { PressureGauge } from "./pressure.ts";

/** Kata's settings with its defaults (facts of its `mem_agent` configuration). */
export interface CompactSettings {
  readonly disabled: boolean;
  readonly periodSecs: number;
  /** With more pressure in a period, in percent, nothing is done in it. */
  readonly periodPsiPercentLimit: number;
  /** A compaction that made more pressure than this is followed by a pause of the same length again. */
  readonly compactPsiPercentLimit: number;
  /** So is one that took longer than this many seconds. */
  readonly compactSecMax: number;
  /** Free blocks below 2^order pages are what compaction shall join. */
  readonly compactOrder: number;
  /** Pages in such blocks that there must be more than after the last compaction. */
  readonly compactThreshold: number;
  /** Periods left out for want of pages after which it happens all the same. */
  readonly compactForceTimes: number;
}

export const defaultCompactSettings: CompactSettings = {
  disabled: true,
  periodSecs: 600,
  periodPsiPercentLimit: 1,
  compactPsiPercentLimit: 5,
  compactSecMax: 180,
  compactOrder: 9,
  compactThreshold: 1024,
  compactForceTimes: Number.MAX_SAFE_INTEGER,
};

const BUDDY_INFO = "/proc/buddyinfo";
const COMPACT = "/proc/sys/vm/compact_memory";

/** Free pages in blocks smaller than 2^order, of all zones (proc(5), /proc/buddyinfo). */
export function countSmallPages(buddyInfo: string, order: number): number {
  let pages = 0;
  for (const line of buddyInfo.split("\n")) {
    const counts = /zone\s+\S+\s+(.*)$/.exec(line)?.[1]?.trim().split(/\s+/) ?? [];
    counts.slice(0, order).forEach((count, index) => {
      pages += Number(count) * 2 ** index;
    });
  }
  return pages;
}

/** Joins free memory to large blocks while the guest has nothing better to do, so that the host can have it back. */
export class Compactor implements Disposable {
  readonly #task = new PeriodicTask("compact memory", () => this.run());
  #settings = defaultCompactSettings;
  #gauge = new PressureGauge();
  #lastPages = 0;
  #leftOut = 0;
  #pause = false;

  get settings(): CompactSettings {
    return this.#settings;
  }

  set(settings: CompactSettings): void {
    this.#settings = settings;
    this.#gauge = new PressureGauge();
    if (settings.disabled) this.#task.stop();
    else this.#task.start(settings.periodSecs);
  }

  #smallPages(): number {
    return countSmallPages(findText(BUDDY_INFO) ?? "", this.#settings.compactOrder);
  }

  /** One period's work. */
  async run(): Promise<void> {
    const busy = this.#gauge.look() > this.#settings.periodPsiPercentLimit;
    const pause = this.#pause;
    this.#pause = false;
    if (busy || pause) return;
    if (this.#smallPages() - this.#lastPages < this.#settings.compactThreshold) {
      this.#leftOut++;
      if (this.#leftOut < this.#settings.compactForceTimes) return;
    }
    this.#leftOut = 0;
    const started = performance.now();
    const gauge = new PressureGauge();
    await compactAll();
    const tooLong = performance.now() - started > this.#settings.compactSecMax * 1000;
    this.#pause = tooLong || gauge.look() > this.#settings.compactPsiPercentLimit;
    this.#lastPages = this.#smallPages();
  }

  [Symbol.dispose](): void {
    this.#task[Symbol.dispose]();
  }
}

/** Documentation/admin-guide/sysctl/vm.rst; the write returns when all zones are done, and cannot be ended before. */
async function compactAll(): Promise<void> {
  using file = openFd(COMPACT, O.WRONLY);
  check(await syscallBlocking(SYS.write, file.number, Buffer.from("1"), 1), "Cannot compact memory");
}
