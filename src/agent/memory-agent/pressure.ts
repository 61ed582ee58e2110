import { findText } from "#linux/file.ts";

const PRESSURE = "/proc/pressure/memory";
const PERCENT = 100;

/** Microseconds since boot in which some task waited for memory (Documentation/accounting/psi.rst); undefined without PSI. */
export function parsePressureTotal(text: string): number | undefined {
  const total = /^some .*\btotal=(\d+)$/m.exec(text)?.[1];
  return total === undefined ? undefined : Number(total);
}

/** How short of memory the guest was between two looks. */
export class PressureGauge {
  readonly #file: string;
  #total: number | undefined;
  #at: number;

  constructor(file = PRESSURE) {
    this.#file = file;
    this.#at = performance.now();
    this.#total = this.#read();
  }

  #read(): number | undefined {
    const text = findText(this.#file);
    return text === undefined ? undefined : parsePressureTotal(text);
  }

  /** Percent of the time since the last look in which some task waited for memory; 0 for a kernel that cannot tell. */
  look(): number {
    const [total, at] = [this.#read(), performance.now()];
    const elapsedUs = (at - this.#at) * 1000;
    const waitedUs = (total ?? 0) - (this.#total ?? total ?? 0);
    [this.#total, this.#at] = [total, at];
    return elapsedUs > 0 ? (PERCENT * waitedUs) / elapsedUs : 0;
  }
}
