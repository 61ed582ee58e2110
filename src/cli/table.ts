const GAP = "  ";

/** Rows of cells as lines, columns left-aligned and two spaces apart, without trailing blanks. */
export function formatTable(
  rows: readonly (readonly string[])[],
  alignRight: ReadonlySet<number> = new Set(),
): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(cell));
    });
  }
  const pad = (cell: string, column: number): string => {
    const blanks = " ".repeat(Math.max(0, (widths[column] ?? 0) - Bun.stringWidth(cell)));
    return alignRight.has(column) ? blanks + cell : cell + blanks;
  };
  return rows.map((row) => row.map(pad).join(GAP).trimEnd()).join("\n");
}
