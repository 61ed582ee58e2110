import { attribute, nestedAttribute, stringAttribute } from "./attribute.ts";
import { AF_INET, encodeAddress, type IpNetwork } from "./ip-address.ts";
import { NLM_F } from "./message.ts";
import { type NetlinkRequest, NetlinkSocket } from "./socket.ts";

// linux/netfilter/nfnetlink.h, nf_tables.h
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_NEWTABLE = 0;
const NFT_MSG_NEWCHAIN = 3;
const NFT_MSG_NEWRULE = 6;
const NFTA_TABLE = { NAME: 1, FLAGS: 2 } as const;
/** The table goes with the socket that made it. */
const NFT_TABLE_F_OWNER = 2;
const NFTA_CHAIN = { TABLE: 1, NAME: 3, HOOK: 4, POLICY: 5, TYPE: 7 } as const;
const NFTA_HOOK = { NUMBER: 1, PRIORITY: 2 } as const;
const NFTA_RULE = { TABLE: 1, CHAIN: 2, EXPRESSIONS: 4 } as const;
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR = { NAME: 1, DATA: 2 } as const;
const NFTA_DATA_VALUE = 1;
const NFT_REG_1 = 1;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_META_OIFNAME = 7;
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
const NF_INET_POST_ROUTING = 4;
/** NF_IP_PRI_NAT_SRC */
const PRIORITY = 100;
const NF_ACCEPT = 1;
/** Where the source address is in an IPv4 header. */
const SOURCE_OFFSET = 12;
const ADDRESS_LENGTH = 4;
const NAME_LENGTH = 16;

const CHAIN = "postrouting";

export interface MasqueradeSpec {
  /** Of the table, unique in the namespace. */
  readonly name: string;
  /** Whose packets get the address of the link that they leave by. */
  readonly source: IpNetwork;
  /** Packets that leave by this link keep their address. */
  readonly exceptLink: string;
  readonly namespaceFd?: number;
}

/**
 * Has the kernel put its own address in the place of those of an IPv4 network, in a table of nftables of its own. The
 * table lives as long as what is returned, and no longer than this process: however that ends, the kernel removes
 * it. Throws PERMISSION_DENIED for a table that another process has, UNIMPLEMENTED or NOT_FOUND for a kernel without nftables and masquerading.
 */
export function openMasquerade({ name, source, exceptLink, namespaceFd }: MasqueradeSpec): Disposable {
  const socket = NetlinkSocket.open(namespaceFd, "netfilter");
  try {
    const changes = [table(name), chain(name), rule(name, source, exceptLink)];
    socket.batch(
      frame(NFNL_MSG_BATCH_BEGIN),
      changes,
      frame(NFNL_MSG_BATCH_END),
      `Cannot masquerade "${source.address}/${source.prefixLength}"`,
    );
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** struct nfgenmsg: u8 family, u8 version, u16 resource in network order. */
function generic(family: number, resource: number): Buffer {
  return Buffer.from([family, 0, resource >> 8, resource & 0xff]);
}

function frame(type: number): NetlinkRequest {
  return { type, flags: 0, body: generic(0, NFNL_SUBSYS_NFTABLES) };
}

function change(message: number, flags: number, attributes: readonly Buffer[]): NetlinkRequest {
  const type = (NFNL_SUBSYS_NFTABLES << 8) | message;
  return { type, flags, body: Buffer.concat([generic(AF_INET, 0), ...attributes]) };
}

/** Numbers of nftables are in network order. */
function number(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return attribute(type, bytes);
}

function table(name: string): NetlinkRequest {
  return change(NFT_MSG_NEWTABLE, NLM_F.CREATE | NLM_F.EXCL, [
    stringAttribute(NFTA_TABLE.NAME, name),
    number(NFTA_TABLE.FLAGS, NFT_TABLE_F_OWNER),
  ]);
}

function chain(name: string): NetlinkRequest {
  return change(NFT_MSG_NEWCHAIN, NLM_F.CREATE, [
    stringAttribute(NFTA_CHAIN.TABLE, name),
    stringAttribute(NFTA_CHAIN.NAME, CHAIN),
    nestedAttribute(NFTA_CHAIN.HOOK, [
      number(NFTA_HOOK.NUMBER, NF_INET_POST_ROUTING),
      number(NFTA_HOOK.PRIORITY, PRIORITY),
    ]),
    number(NFTA_CHAIN.POLICY, NF_ACCEPT),
    stringAttribute(NFTA_CHAIN.TYPE, "nat"),
  ]);
}

function rule(name: string, source: IpNetwork, exceptLink: string): NetlinkRequest {
  const mask = prefixMask(source.prefixLength);
  const network = encodeAddress(source.address).map((byte, index) => byte & (mask[index] ?? 0));
  const link = Buffer.alloc(NAME_LENGTH);
  link.write(exceptLink, 0, NAME_LENGTH - 1);
  return change(NFT_MSG_NEWRULE, NLM_F.CREATE | NLM_F.APPEND, [
    stringAttribute(NFTA_RULE.TABLE, name),
    stringAttribute(NFTA_RULE.CHAIN, CHAIN),
    nestedAttribute(NFTA_RULE.EXPRESSIONS, [
      loadSource(),
      maskRegister(mask),
      compare(NFT_CMP_EQ, network),
      loadLinkName(),
      compare(NFT_CMP_NEQ, link),
      expression("masq", []),
    ]),
  ]);
}

function expression(name: string, attributes: readonly Buffer[]): Buffer {
  return nestedAttribute(NFTA_LIST_ELEM, [
    stringAttribute(NFTA_EXPR.NAME, name),
    nestedAttribute(NFTA_EXPR.DATA, attributes),
  ]);
}

/** NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN. */
function loadSource(): Buffer {
  return expression("payload", [
    number(1, NFT_REG_1),
    number(2, NFT_PAYLOAD_NETWORK_HEADER),
    number(3, SOURCE_OFFSET),
    number(4, ADDRESS_LENGTH),
  ]);
}

/** NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR. */
function maskRegister(mask: Buffer): Buffer {
  return expression("bitwise", [
    number(1, NFT_REG_1),
    number(2, NFT_REG_1),
    number(3, ADDRESS_LENGTH),
    nestedAttribute(4, [attribute(NFTA_DATA_VALUE, mask)]),
    nestedAttribute(5, [attribute(NFTA_DATA_VALUE, Buffer.alloc(ADDRESS_LENGTH))]),
  ]);
}

/** NFTA_META_DREG, _KEY. */
function loadLinkName(): Buffer {
  return expression("meta", [number(1, NFT_REG_1), number(2, NFT_META_OIFNAME)]);
}

/** NFTA_CMP_SREG, _OP, _DATA. */
function compare(operation: number, value: Uint8Array): Buffer {
  return expression("cmp", [
    number(1, NFT_REG_1),
    number(2, operation),
    nestedAttribute(3, [attribute(NFTA_DATA_VALUE, value)]),
  ]);
}

function prefixMask(prefixLength: number): Buffer {
  const mask = Buffer.alloc(ADDRESS_LENGTH);
  for (let bit = 0; bit < prefixLength; bit++) mask[bit >> 3] = (mask[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  return mask;
}
