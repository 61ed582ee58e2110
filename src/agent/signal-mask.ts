import { findText } from "#linux/file.ts";

/** Whether a process blocks, ignores or catches a signal (proc(5), SigBlk, SigIgn and SigCgt of status). */
export function isSignalHandled(pid: number, signalNumber: number): boolean {
  const status = findText(`/proc/${pid}/status`);
  // Ended: a signal more or less makes no difference.
  return status === undefined || maskHas(status, signalNumber);
}

export function maskHas(status: string, signalNumber: number): boolean {
  const bit = 1n << BigInt(signalNumber - 1);
  const masks = status.matchAll(/^Sig(?:Blk|Ign|Cgt):\s*([0-9a-f]{1,16})$/gm);
  return [...masks].some(([, mask]) => (BigInt(`0x${mask}`) & bit) !== 0n);
}
