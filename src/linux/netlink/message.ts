import { HakoError } from "#base/error.ts";
import { SystemError } from "#sys/errno.ts";
import { Attributes, align } from "./attribute.ts";

/** struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port (linux/netlink.h). */
export const MESSAGE_HEADER_LENGTH = 16;

/** Flags of a request and of its answers. */
export const NLM_F = {
  REQUEST: 0x001,
  MULTI: 0x002,
  ACK: 0x004,
  DUMP_INTR: 0x010,
  ROOT: 0x100,
  MATCH: 0x200,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
} as const;

const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

/** NLMSGERR_ATTR_MSG: what the kernel says about an error, as text. */
const NLMSGERR_ATTR_MSG = 1;

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly body: Buffer;
}

export function encodeMessage(type: number, flags: number, sequence: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(MESSAGE_HEADER_LENGTH + body.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.set(body, MESSAGE_HEADER_LENGTH);
  return bytes;
}

/** The messages of one datagram. Throws DATA_LOSS when one reaches beyond it. */
export function decodeMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let offset = 0; offset + MESSAGE_HEADER_LENGTH <= datagram.length; ) {
    const length = datagram.readUInt32LE(offset);
    if (length < MESSAGE_HEADER_LENGTH || offset + length > datagram.length) {
      throw new HakoError("DATA_LOSS", `Cannot read a netlink message: length ${length} at ${offset}`);
    }
    const type = datagram.readUInt16LE(offset + 4);
    if (type !== NLMSG_NOOP) {
      messages.push({
        type,
        flags: datagram.readUInt16LE(offset + 6),
        sequence: datagram.readUInt32LE(offset + 8),
        body: datagram.subarray(offset + MESSAGE_HEADER_LENGTH, offset + length),
      });
    }
    offset += align(length);
  }
  return messages;
}

/** Throws what an NLMSG_ERROR or NLMSG_DONE message says, if it is an error. */
export function checkOutcome(message: NetlinkMessage, action: string): void {
  if (message.body.length < 4) {
    if (message.type === NLMSG_DONE) return;
    throw new HakoError("DATA_LOSS", `${action}: the answer of the kernel is cut off`);
  }
  const errno = -message.body.readInt32LE(0);
  if (errno === 0) return;
  const reason = kernelText(message);
  throw new SystemError(reason === undefined ? action : `${action}: ${reason}`, errno);
}

/**
 * The extended acknowledgement. In an NLMSG_ERROR it follows the header of the request (NLM_F_CAPPED) or the whole
 * request, in an NLMSG_DONE the error number.
 */
function kernelText(message: NetlinkMessage): string | undefined {
  if ((message.flags & NLM_F.ACK_TLVS) === 0) return undefined;
  let offset = 4;
  if (message.type === NLMSG_ERROR) {
    if (message.body.length < 4 + MESSAGE_HEADER_LENGTH) return undefined;
    const capped = (message.flags & NLM_F.CAPPED) !== 0;
    offset += capped ? MESSAGE_HEADER_LENGTH : align(message.body.readUInt32LE(4));
  }
  if (offset > message.body.length) return undefined;
  return new Attributes(message.body.subarray(offset)).string(NLMSGERR_ATTR_MSG);
}
