/** Makes tar archives in memory, good ones and (through `header` and `raw`) bad ones. */

export type TarType = keyof typeof typeFlags;

const typeFlags = {
  file: "0",
  link: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
  paxGlobal: "g",
  pax: "x",
  gnuLongName: "L",
  gnuLongLink: "K",
  gnuSparse: "S",
} as const;

export interface TarEntrySpec {
  readonly name: string | Uint8Array;
  readonly type?: TarType;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly data?: string | Uint8Array;
  readonly target?: string;
  readonly major?: number;
  readonly minor?: number;
  /** Records of a pax header before the entry. */
  readonly pax?: Readonly<Record<string, string | Uint8Array>>;
  /** Written into the size field instead of the data's length. */
  readonly size?: number;
  /** Bytes put over the finished header at an offset, before its checksum is made. */
  readonly patch?: readonly (readonly [offset: number, bytes: string | Uint8Array])[];
  /** Overrides the checksum. */
  readonly checksum?: number;
}

/** An archive with its two closing zero blocks. */
export function makeTar(entries: readonly TarEntrySpec[]): Buffer {
  return Buffer.concat([...entries.map(makeEntry), Buffer.alloc(1024)]);
}

/** One entry: pax header if there are records, header, data padded to 512. */
export function makeEntry(entry: TarEntrySpec): Buffer {
  const parts: Buffer[] = [];
  if (entry.pax) parts.push(makeEntry({ name: "pax", type: "pax", data: paxRecords(entry.pax) }));
  const data = Buffer.from(entry.data ?? "");
  parts.push(header(entry, entry.size ?? data.length), data, Buffer.alloc((512 - (data.length % 512)) % 512));
  return Buffer.concat(parts);
}

/** `<length> <key>=<value>\n` for each record, the length counting itself. */
export function paxRecords(records: Readonly<Record<string, string | Uint8Array>>): Buffer {
  const parts = Object.entries(records).map(([key, value]) => {
    const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
    let length = body.length + 1;
    while (String(length).length + body.length > length) length++;
    return Buffer.concat([Buffer.from(String(length)), body]);
  });
  return Buffer.concat(parts);
}

function header(entry: TarEntrySpec, size: number): Buffer {
  const block = Buffer.alloc(512);
  const name = Buffer.from(entry.name);
  block.set(name.subarray(0, 100), 0);
  octal(block, 100, 8, entry.mode ?? (entry.type === "directory" ? 0o755 : 0o644));
  octal(block, 108, 8, entry.uid ?? 0);
  octal(block, 116, 8, entry.gid ?? 0);
  octal(block, 124, 12, size);
  octal(block, 136, 12, entry.mtime ?? 0);
  block.write(typeFlags[entry.type ?? "file"], 156);
  block.write(entry.target ?? "", 157, 100);
  block.write("ustar\x0000", 257, "latin1");
  octal(block, 329, 8, entry.major ?? 0);
  octal(block, 337, 8, entry.minor ?? 0);
  for (const [offset, bytes] of entry.patch ?? []) block.set(Buffer.from(bytes), offset);
  block.fill(" ", 148, 156);
  const sum = entry.checksum ?? block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Octal with a NUL behind it, or base 256 when it does not fit. */
function octal(block: Buffer, offset: number, length: number, value: number): void {
  const digits = value.toString(8);
  if (value >= 0 && digits.length < length) {
    block.write(`${digits.padStart(length - 1, "0")}\0`, offset, "latin1");
    return;
  }
  let rest = BigInt.asUintN(8 * length, BigInt(value));
  for (let index = offset + length - 1; index >= offset; index--) {
    block[index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[offset] = (block[offset] ?? 0) | 0x80;
}
