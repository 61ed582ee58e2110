/** Lines of context around a change. */
const CONTEXT = 2;

/**
 * What changes between two texts of which one part is replaced: the lines that go and come, with some around them. Empty
 * when they are the same.
 */
export function lineDiff(before: string, after: string): string {
  if (before === after) return "";
  const [old, fresh] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < Math.min(old.length, fresh.length) && old[head] === fresh[head]) head++;
  let tail = 0;
  while (
    tail < Math.min(old.length, fresh.length) - head &&
    old[old.length - 1 - tail] === fresh[fresh.length - 1 - tail]
  ) {
    tail++;
  }
  const lines = [
    ...old.slice(Math.max(0, head - CONTEXT), head).map((line) => `  ${line}`),
    ...old.slice(head, old.length - tail).map((line) => `- ${line}`),
    ...fresh.slice(head, fresh.length - tail).map((line) => `+ ${line}`),
    ...old.slice(old.length - tail, old.length - tail + CONTEXT).map((line) => `  ${line}`),
  ];
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}
