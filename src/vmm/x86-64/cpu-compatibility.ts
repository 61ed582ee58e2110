import { type CpuidEntry, findLeaf } from "./cpuid.ts";

type Register = "eax" | "ebx" | "ecx" | "edx";

/** Registers whose bits each stand for something that the guest may use. */
const featureRegisters: readonly (readonly [
  leaf: number,
  subleaf: number,
  registers: readonly Register[],
])[] = [
  [0x1, 0, ["ecx", "edx"]],
  [0x7, 0, ["ebx", "ecx", "edx"]],
  [0x7, 1, ["eax"]],
  [0xd, 0, ["eax", "edx"]],
  [0xd, 1, ["eax", "ecx"]],
  [0x4000_0001, 0, ["eax"]],
  [0x8000_0001, 0, ["ecx", "edx"]],
  [0x8000_0007, 0, ["edx"]],
  [0x8000_0008, 0, ["ebx"]],
  [0x8000_0021, 0, ["eax"]],
];

/** Bits that the monitor sets by itself, or that follow the processor's state (OSXSAVE, OSPKE). */
const ownBits: Readonly<Record<string, number>> = {
  "1.0.ecx": (1 << 31) | (1 << 24) | (1 << 27),
  "1.0.edx": 1 << 28,
  "7.0.ecx": 1 << 4,
};

/** Why a guest that was given `guest` cannot go on where KVM supports `host`; undefined when it can. */
export function cpuMismatch(guest: readonly CpuidEntry[], host: readonly CpuidEntry[]): string | undefined {
  const vendor = (entries: readonly CpuidEntry[]) => {
    const { ebx = 0, ecx = 0, edx = 0 } = findLeaf(entries, 0) ?? {};
    return [ebx, edx, ecx].map((value) => value.toString(16)).join("");
  };
  if (vendor(guest) !== vendor(host)) return "it was made on a processor of another vendor";
  for (const [leaf, subleaf, registers] of featureRegisters) {
    for (const register of registers) {
      const used = findLeaf(guest, leaf, subleaf)?.[register] ?? 0;
      const there = findLeaf(host, leaf, subleaf)?.[register] ?? 0;
      const missing = (used & ~there & ~(ownBits[`${leaf.toString(16)}.${subleaf}.${register}`] ?? 0)) >>> 0;
      if (missing !== 0) {
        const where = `leaf 0x${leaf.toString(16)}, subleaf ${subleaf}, ${register}`;
        return `its guest uses features that this processor lacks: CPUID ${where}, bits 0x${missing.toString(16)}`;
      }
    }
  }
  return undefined;
}
