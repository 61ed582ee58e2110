import type { CpuidEntry } from "./cpuid.ts";
import { SIGNIFICANT_INDEX } from "./cpuid.ts";

/** What the guest's processors are made of. */
export interface CpuModel {
  /** What KVM supports on this host (KVM_GET_SUPPORTED_CPUID). */
  readonly supported: readonly CpuidEntry[];
  /** KVM_CAP_TSC_DEADLINE_TIMER: some kernels support it without saying so in CPUID. */
  readonly tscDeadline: boolean;
}

const bit = (number: number) => 1 << number;

// Leaf 1, ECX (Intel SDM volume 2, table 3-10)
const MONITOR = bit(3);
const VMX = bit(5);
const SMX = bit(6);
const SPEED_STEP = bit(7);
const THERMAL_MONITOR_2 = bit(8);
const DEBUG_INTERFACE = bit(11);
const PERFORMANCE_CAPABILITIES = bit(15);
const TSC_DEADLINE = bit(24);
const HYPERVISOR = bit(31);
const HIDDEN_1_ECX =
  MONITOR | VMX | SMX | SPEED_STEP | THERMAL_MONITOR_2 | DEBUG_INTERFACE | PERFORMANCE_CAPABILITIES;
// Leaf 1, EDX
const HYPER_THREADING = bit(28);
// Leaf 7, EBX: transactional memory (side channels), SGX, processor trace, quality of service
const HIDDEN_7_EBX = bit(2) | bit(4) | bit(11) | bit(12) | bit(15) | bit(25);
// Leaf 7, ECX: WAITPKG, which lets a vCPU stand still without an exit; SGX launch control
const HIDDEN_7_ECX = bit(5) | bit(30);
// Leaf 0x80000001, ECX (AMD64 manual volume 3, E.4.2): SVM, SKINIT, watchdog, lightweight profiling, IBS, counters
const HIDDEN_EXTENDED_ECX =
  bit(2) | bit(10) | bit(12) | bit(13) | bit(15) | bit(23) | bit(24) | bit(27) | bit(28);

/** Leaves of no use in a guest: thermal, performance counters, resource directors, SGX, trace, AMD's SVM and IBS. */
const emptied: ReadonlySet<number> = new Set([
  0x5, 0xa, 0xf, 0x10, 0x12, 0x14, 0x8000_000a, 0x8000_001b, 0x8000_0020, 0x8000_0022, 0x8000_0026,
]);
/** Topology leaves, which are made anew. */
const TOPOLOGY = 0xb;
const TOPOLOGY_V2 = 0x1f;

/** CPUID of one processor of `count`, each a core of its own in one package. APIC ids are the indices. */
export function guestCpuid(model: CpuModel, index: number, count: number): CpuidEntry[] {
  const entries = model.supported
    .filter(({ leaf }) => leaf !== TOPOLOGY && leaf !== TOPOLOGY_V2)
    .map((entry) => adapt(entry, model, index, count));
  const highest = model.supported.find(({ leaf }) => leaf === 0)?.eax ?? 0;
  const topology = [TOPOLOGY, TOPOLOGY_V2].filter((leaf) => leaf <= highest);
  return [...entries, ...topology.flatMap((leaf) => topologyEntries(leaf, index, count))];
}

/** Bits of an APIC id that tell the cores of the package apart. */
function idBits(count: number): number {
  return Math.ceil(Math.log2(count));
}

function adapt(entry: CpuidEntry, model: CpuModel, index: number, count: number): CpuidEntry {
  if (emptied.has(entry.leaf)) return { ...entry, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  switch (entry.leaf) {
    case 0x1:
      return features(entry, model, index, count);
    case 0x4:
      return intelCache(entry, count);
    case 0x6:
      // ARAT alone: the local APIC's timer runs in every state.
      return { ...entry, eax: entry.eax & bit(2), ebx: 0, ecx: 0, edx: 0 };
    case 0x7:
      if (entry.subleaf !== 0) return entry;
      return { ...entry, ebx: entry.ebx & ~HIDDEN_7_EBX, ecx: entry.ecx & ~HIDDEN_7_ECX };
    case 0x8000_0001:
      return { ...entry, ecx: entry.ecx & ~HIDDEN_EXTENDED_ECX };
    case 0x8000_0008:
      return { ...entry, ecx: (idBits(count) << 12) | (count - 1) };
    case 0x8000_001d:
      return amdCache(entry, count);
    case 0x8000_001e:
      return { ...entry, eax: index, ebx: index, ecx: 0, edx: 0 };
    default:
      return entry;
  }
}

function features(entry: CpuidEntry, model: CpuModel, index: number, count: number): CpuidEntry {
  const shown = (entry.ecx & ~HIDDEN_1_ECX) | HYPERVISOR;
  const threading = count > 1 ? HYPER_THREADING : 0;
  return {
    ...entry,
    // The logical processors of the package; the field has eight bits.
    ebx: (entry.ebx & 0xff00) | ((1 << idBits(count)) << 16) | (index << 24),
    ecx: model.tscDeadline ? shown | TSC_DEADLINE : shown & ~TSC_DEADLINE,
    edx: (entry.edx & ~HYPER_THREADING) | threading,
  };
}

/** Deterministic cache parameters: levels 1 and 2 belong to a core, level 3 to all. */
function intelCache(entry: CpuidEntry, count: number): CpuidEntry {
  const kind = entry.eax & 0x1f;
  if (kind === 0) return entry;
  const level = (entry.eax >> 5) & 7;
  const sharing = level >= 3 ? (1 << idBits(count)) - 1 : 0;
  const cores = (1 << idBits(count)) - 1;
  return { ...entry, eax: (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26) };
}

function amdCache(entry: CpuidEntry, count: number): CpuidEntry {
  if ((entry.eax & 0x1f) === 0) return entry;
  const level = (entry.eax >> 5) & 7;
  return { ...entry, eax: (entry.eax & 0x3fff) | ((level >= 3 ? count - 1 : 0) << 14) };
}

const LEVEL_THREAD = 1;
const LEVEL_CORE = 2;

/** Extended topology: one thread a core, all cores in one package; EDX is the x2APIC id at every level. */
function topologyEntries(leaf: number, index: number, count: number): CpuidEntry[] {
  const level = (subleaf: number, shift: number, processors: number, kind: number): CpuidEntry => ({
    leaf,
    subleaf,
    flags: SIGNIFICANT_INDEX,
    eax: shift,
    ebx: processors,
    ecx: subleaf | (kind << 8),
    edx: index,
  });
  return [level(0, 0, 1, LEVEL_THREAD), level(1, idBits(count), count, LEVEL_CORE), level(2, 0, 0, 0)];
}
