const WIDTH = 30;

/** A line on standard error that replaces itself; nothing at all unless that is a terminal. */
export class ProgressBar implements Disposable {
  readonly #shown = process.stderr.isTTY === true;

  update(done: number, total: number, label: string): void {
    if (!this.#shown) return;
    const filled = Math.round((done / total) * WIDTH);
    const bar = "█".repeat(filled) + "░".repeat(WIDTH - filled);
    process.stderr.write(`\r\x1b[K${bar} ${done}/${total} ${label}`);
  }

  [Symbol.dispose](): void {
    if (this.#shown) process.stderr.write("\r\x1b[K");
  }
}
