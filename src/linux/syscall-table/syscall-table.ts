/** Numbers by name. A further architecture is a further file like its neighbours. */
export type SyscallTable = ReadonlyMap<string, number>;

/** Reads lines of a first number and the names of the calls that have it and the following numbers. */
export function parseSyscallTable(text: string): SyscallTable {
  const table = new Map<string, number>();
  for (const line of text.trim().split("\n")) {
    const [first, ...names] = line.trim().split(/\s+/);
    names.forEach((name, index) => {
      table.set(name, Number(first) + index);
    });
  }
  return table;
}
