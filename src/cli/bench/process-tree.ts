import { readdirSync, readFileSync } from "node:fs";

/** Memory of a set of processes, in bytes. */
export interface ProcessMemory {
  readonly processes: number;
  /** Resident, each shared page divided among all that map it (proc(5), smaps_rollup). */
  readonly pssBytes: number;
  /** Pages that are theirs alone. */
  readonly privateBytes: number;
}

/** Pids of processes whose environment has exactly this entry (`NAME=value`). */
export function processesWithEnvironment(entry: string): number[] {
  return allPids().filter((pid) => `\0${readProc(pid, "environ")}`.includes(`\0${entry}\0`));
}

/** Pids of processes whose program name (at most 15 bytes, as the kernel keeps it) begins with `prefix`. */
export function processesNamed(prefix: string): number[] {
  const kept = prefix.slice(0, 15);
  return allPids().filter((pid) => readProc(pid, "comm").startsWith(kept));
}

export function childrenOf(parent: number): number[] {
  return allPids().filter((pid) => parentOf(pid) === parent);
}

/** The processes and all that descend from them. */
export function withDescendants(roots: readonly number[]): number[] {
  const found = new Set(roots);
  const parents = allPids().map((pid) => [pid, parentOf(pid)] as const);
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const [pid, parent] of parents) if (parent !== undefined && found.has(parent)) found.add(pid);
  }
  return [...found];
}

/** What the processes use together; those that have ended meanwhile count nothing. */
export function memoryOf(pids: readonly number[]): ProcessMemory {
  let [processes, pssBytes, privateBytes] = [0, 0, 0];
  for (const pid of pids) {
    const rollup = readProc(pid, "smaps_rollup");
    if (rollup === "") continue;
    processes++;
    pssBytes += readKib(rollup, "Pss") * 1024;
    privateBytes += (readKib(rollup, "Private_Clean") + readKib(rollup, "Private_Dirty")) * 1024;
  }
  return { processes, pssBytes, privateBytes };
}

/** The host's memory that could still be used, in bytes (proc(5), MemAvailable): kernel memory counts too. */
export function availableBytes(): number {
  return readKib(readFileSync("/proc/meminfo", "latin1"), "MemAvailable") * 1024;
}

function readKib(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1] ?? 0);
}

function parentOf(pid: number): number | undefined {
  const stat = readProc(pid, "stat");
  // The command in field 2 may hold spaces and parentheses; fields count on from its last ")".
  const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
  return parent === undefined ? undefined : Number(parent);
}

function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Empty for a process that has ended. */
function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}
