import type { ByteWriter } from "./byte-writer.ts";

/** A token bucket for bytes and one for operations; an absent rate is no limit. */
export interface RateLimit {
  /** Bytes a second. */
  readonly bytesRate?: bigint;
  /** Bytes that may pass at once beyond the rate. */
  readonly bytesBurst?: bigint;
  /** Operations a second. */
  readonly operationsRate?: bigint;
  readonly operationsBurst?: bigint;
}

/** struct hako_rate_limit. */
export function writeRateLimit(writer: ByteWriter, limit: RateLimit = {}): void {
  writer.u64(limit.bytesRate ?? 0n).u64(limit.bytesBurst ?? 0n);
  writer.u64(limit.operationsRate ?? 0n).u64(limit.operationsBurst ?? 0n);
}
