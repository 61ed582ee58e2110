import { HakoError } from "#base/error.ts";
import type { MemAgentCompactConfig, MemAgentMemcgConfig } from "#proto/agent.ts";
import { Compactor, type CompactSettings } from "./compactor.ts";
import { MemcgReclaimer, type MemcgSettings } from "./memcg-reclaimer.ts";

const PERCENT_MAX = 100;
const SWAPPINESS_MAX = 200;
/** MAX_ORDER of the kernel. */
const ORDER_MAX = 11;

function checked(what: string, value: number, max: number): number {
  if (value >= 0 && value <= max) return value;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot set the memory agent's ${what} to ${value}: at most ${max}`,
  );
}

/** 64-bit settings; beyond this they all mean "for ever". */
function count(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** The two parts of what Kata calls its memory agent. Both are off until they are set. */
export class MemoryAgent implements Disposable {
  readonly #reclaimer: MemcgReclaimer;
  readonly #compactor = new Compactor();

  constructor(cgroups: () => readonly string[]) {
    this.#reclaimer = new MemcgReclaimer(cgroups);
  }

  get settings(): { readonly memcg: MemcgSettings; readonly compact: CompactSettings } {
    return { memcg: this.#reclaimer.settings, compact: this.#compactor.settings };
  }

  /** Changes the members that are set. Throws INVALID_ARGUMENT and changes nothing. */
  setMemcg(change: Partial<MemAgentMemcgConfig>): void {
    const old = this.#reclaimer.settings;
    this.#reclaimer.set({
      disabled: change.disabled ?? old.disabled,
      swap: change.swap ?? old.swap,
      swappinessMax: checked("swappiness", change.swappinessMax ?? old.swappinessMax, SWAPPINESS_MAX),
      periodSecs: change.periodSecs === undefined ? old.periodSecs : count(change.periodSecs),
      periodPsiPercentLimit: checked(
        "pressure limit of a period",
        change.periodPsiPercentLimit ?? old.periodPsiPercentLimit,
        PERCENT_MAX,
      ),
      evictionPsiPercentLimit: checked(
        "pressure limit of an eviction",
        change.evictionPsiPercentLimit ?? old.evictionPsiPercentLimit,
        PERCENT_MAX,
      ),
      evictionRunAgingCountMin:
        change.evictionRunAgingCountMin === undefined
          ? old.evictionRunAgingCountMin
          : count(change.evictionRunAgingCountMin),
    });
  }

  /** The same for compaction. */
  setCompact(change: Partial<MemAgentCompactConfig>): void {
    const old = this.#compactor.settings;
    const number = (value: bigint | undefined, otherwise: number) =>
      value === undefined ? otherwise : count(value);
    this.#compactor.set({
      disabled: change.disabled ?? old.disabled,
      periodSecs: number(change.periodSecs, old.periodSecs),
      periodPsiPercentLimit: checked(
        "pressure limit of a period",
        change.periodPsiPercentLimit ?? old.periodPsiPercentLimit,
        PERCENT_MAX,
      ),
      compactPsiPercentLimit: checked(
        "pressure limit of a compaction",
        change.compactPsiPercentLimit ?? old.compactPsiPercentLimit,
        PERCENT_MAX,
      ),
      compactSecMax: checked(
        "longest compaction",
        number(change.compactSecMax, old.compactSecMax),
        Number.MAX_SAFE_INTEGER,
      ),
      compactOrder: checked("order", change.compactOrder ?? old.compactOrder, ORDER_MAX),
      compactThreshold: number(change.compactThreshold, old.compactThreshold),
      compactForceTimes: number(change.compactForceTimes, old.compactForceTimes),
    });
  }

  [Symbol.dispose](): void {
    this.#reclaimer[Symbol.dispose]();
    this.#compactor[Symbol.dispose]();
  }
}
