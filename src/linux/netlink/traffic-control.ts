import { E, SystemError } from "#sys/errno.ts";
import { Attributes, attribute, nestedAttribute, stringAttribute } from "./attribute.ts";
import { NLM_F } from "./message.ts";
import type { NetlinkSocket } from "./socket.ts";

// linux/rtnetlink.h
const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;
const RTM_GETTFILTER = 46;

/** struct tcmsg: u8 family, 3 bytes of padding, i32 index of the link, u32 handle, u32 parent, u32 info. */
const HEADER_LENGTH = 20;

/** TC_H_INGRESS of linux/pkt_sched.h, and the handle that the ingress queueing discipline always has. */
const PARENT_INGRESS = 0xffff_fff1;
const HANDLE_INGRESS = 0xffff_0000;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
/** linux/pkt_cls.h */
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TC_U32_TERMINAL = 1;
const TCA_MATCHALL_ACT = 2;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TC_ACT_STOLEN = 4;
/** linux/tc_act/tc_mirred.h: struct tc_mirred is five words of tc_gen, the action and the link's index. */
const TCA_MIRRED_PARMS = 2;
const TCA_EGRESS_REDIR = 1;

/** ETH_P_ALL in network order, and a priority: lower numbers first. */
const PROTOCOL_ALL = 0x0300;
const PRIORITY = 1;

export type Classifier = "u32" | "matchall";

/** The kinds of queueing disciplines of a link: `ingress`, `clsact`, `noqueue` … */
export function listQueueingDisciplines(socket: NetlinkSocket, linkIndex: number): string[] {
  return socket
    .dump(RTM_GETQDISC, header(0, 0, 0), "Cannot list queueing disciplines")
    .filter((body) => body.length >= HEADER_LENGTH && body.readInt32LE(4) === linkIndex)
    .map((body) => new Attributes(body.subarray(HEADER_LENGTH)).string(TCA_KIND) ?? "");
}

/** Lets filters see what a link receives before anybody else does. Throws ALREADY_EXISTS. */
export function addIngress(socket: NetlinkSocket, linkIndex: number): void {
  const body = Buffer.concat([
    header(linkIndex, HANDLE_INGRESS, PARENT_INGRESS),
    stringAttribute(TCA_KIND, "ingress"),
  ]);
  const action = `Cannot add an ingress queueing discipline to network link ${linkIndex}`;
  socket.change(RTM_NEWQDISC, NLM_F.CREATE | NLM_F.EXCL, body, action);
}

/** Takes the ingress queueing discipline away with all of its filters; false when there is none. */
export function deleteIngress(socket: NetlinkSocket, linkIndex: number): boolean {
  const body = header(linkIndex, HANDLE_INGRESS, PARENT_INGRESS);
  try {
    socket.change(RTM_DELQDISC, 0, body, `Cannot delete the ingress of network link ${linkIndex}`);
    return true;
  } catch (error) {
    if (error instanceof SystemError && (error.errno === E.ENOENT || error.errno === E.EINVAL)) return false;
    throw error;
  }
}

/**
 * Sends all that link `from` receives out of link `to` instead, unseen by the host's own network stack. `from` needs
 * an ingress queueing discipline. Throws NOT_FOUND for a classifier or action that the kernel lacks.
 */
export function addRedirect(
  socket: NetlinkSocket,
  from: number,
  to: number,
  classifier: Classifier = "u32",
): void {
  const body = Buffer.concat([
    header(from, 0, HANDLE_INGRESS, PRIORITY * 0x1_0000 + PROTOCOL_ALL),
    stringAttribute(TCA_KIND, classifier),
    nestedAttribute(TCA_OPTIONS, classifier === "u32" ? u32Options(to) : [actions(TCA_MATCHALL_ACT, to)]),
  ]);
  const action = `Cannot redirect network link ${from} to link ${to} by a ${classifier} filter`;
  socket.change(RTM_NEWTFILTER, NLM_F.CREATE | NLM_F.EXCL, body, action);
}

/** How many filters the ingress of a link has; the hash tables of u32 count, too. */
export function countIngressFilters(socket: NetlinkSocket, linkIndex: number): number {
  const body = header(linkIndex, 0, HANDLE_INGRESS);
  return socket.dump(RTM_GETTFILTER, body, `Cannot list the filters of network link ${linkIndex}`).length;
}

function header(linkIndex: number, handle: number, parent: number, info = 0): Buffer {
  const bytes = Buffer.alloc(HEADER_LENGTH);
  bytes.writeInt32LE(linkIndex, 4);
  bytes.writeUInt32LE(handle >>> 0, 8);
  bytes.writeUInt32LE(parent >>> 0, 12);
  bytes.writeUInt32LE(info >>> 0, 16);
  return bytes;
}

/** struct tc_u32_sel of 16 bytes, then one struct tc_u32_key of 16 bytes: no bit of the packet has to match. */
function u32Options(to: number): Buffer[] {
  const selector = Buffer.alloc(32);
  selector.writeUInt8(TC_U32_TERMINAL, 0);
  selector.writeUInt8(1, 2);
  return [attribute(TCA_U32_SEL, selector), actions(TCA_U32_ACT, to)];
}

/** A list of one action. */
function actions(type: number, to: number): Buffer {
  const parameters = Buffer.alloc(28);
  parameters.writeInt32LE(TC_ACT_STOLEN, 8);
  parameters.writeInt32LE(TCA_EGRESS_REDIR, 20);
  parameters.writeUInt32LE(to, 24);
  const mirred = [
    stringAttribute(TCA_ACT_KIND, "mirred"),
    nestedAttribute(TCA_ACT_OPTIONS, [attribute(TCA_MIRRED_PARMS, parameters)]),
  ];
  return nestedAttribute(type, [nestedAttribute(1, mirred)]);
}
