import { describe, expect, test } from "bun:test";
import {
  Attributes,
  attribute,
  nestedAttribute,
  stringAttribute,
  u32Attribute,
} from "#linux/netlink/attribute.ts";
import {
  checkOutcome,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  NLMSG_DONE,
  NLMSG_ERROR,
} from "#linux/netlink/message.ts";

const ENODEV = 19;
const CAPPED = 0x100;
const ACK_TLVS = 0x200;

function outcome(type: number, flags: number, ...parts: Uint8Array[]): NetlinkMessage {
  return { type, flags, sequence: 1, body: Buffer.concat(parts) };
}

function i32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

describe("netlink attributes", () => {
  test("are padded to four bytes, and come back", () => {
    const bytes = Buffer.concat([
      stringAttribute(3, "eth0"),
      u32Attribute(4, 1500),
      nestedAttribute(18, [stringAttribute(1, "veth")]),
      attribute(40, Buffer.alloc(0)),
    ]);
    expect(bytes.toString("hex")).toBe(
      "090003006574683000000000" + "08000400dc050000" + "10001280" + "090001007665746800000000" + "04002800",
    );
    const attributes = new Attributes(bytes);
    expect(attributes.string(3)).toBe("eth0");
    expect(attributes.u32(4)).toBe(1500);
    expect(attributes.nested(18)?.string(1)).toBe("veth");
    expect(attributes.bytes(40)?.length).toBe(0);
    expect([attributes.u32(99), attributes.string(99), attributes.nested(99)]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  test("beyond their bounds are refused", () => {
    for (const hex of ["03000100", "00000100", "09000100616263", "0800010061626364ff00ff00"]) {
      expect(() => new Attributes(Buffer.from(hex, "hex"))).toThrow("Cannot read netlink attributes");
    }
    expect(() => new Attributes(Buffer.from("050004000000", "hex")).u32(4)).toThrow("it has 1 bytes");
    expect(() => new Attributes(Buffer.from("04000400", "hex")).u8(4)).toThrow("it has 0 bytes");
    expect(new Attributes(Buffer.from("0400", "hex")).bytes(1)).toBeUndefined();
  });

  test("that cannot be sent are refused", () => {
    expect(() => stringAttribute(3, "a\0b")).toThrow("NUL");
    expect(() => attribute(1, new Uint8Array(65533))).toThrow("65533 bytes");
  });
});

describe("netlink messages", () => {
  test("of one datagram come apart", () => {
    const datagram = Buffer.concat([
      encodeMessage(16, 2, 7, Buffer.from("abcd")),
      encodeMessage(1, 0, 7, Buffer.alloc(0)),
      encodeMessage(3, 2, 7, i32(0)),
    ]);
    const messages = decodeMessages(datagram);
    expect(messages.map(({ type, flags, sequence }) => [type, flags, sequence])).toEqual([
      [16, 2, 7],
      [3, 2, 7],
    ]);
    expect(messages[0]?.body.toString()).toBe("abcd");
  });

  test("beyond their bounds are refused", () => {
    const datagram = encodeMessage(16, 2, 7, Buffer.from("abcd"));
    expect(() => decodeMessages(datagram.subarray(0, 19))).toThrow("length 20");
    datagram.writeUInt32LE(15, 0);
    expect(() => decodeMessages(datagram)).toThrow("length 15");
  });

  test("say how a request ended", () => {
    expect(() => checkOutcome(outcome(NLMSG_ERROR, 0, i32(0)), "Cannot act")).not.toThrow();
    expect(() => checkOutcome(outcome(NLMSG_DONE, 0), "Cannot act")).not.toThrow();
    expect(() => checkOutcome(outcome(NLMSG_ERROR, 0), "Cannot act")).toThrow("Cannot act: the answer");
    expect(() => checkOutcome(outcome(NLMSG_ERROR, 0, i32(-ENODEV)), "Cannot act")).toThrow(
      "Cannot act: ENODEV (No such device)",
    );
  });

  test("carry the kernel's own words behind a whole or a capped request", () => {
    const text = stringAttribute(1, "Because");
    const request = encodeMessage(16, 1, 1, Buffer.from("12345"));
    const whole = Buffer.concat([request, Buffer.alloc(3)]);
    const cases = [
      outcome(NLMSG_ERROR, ACK_TLVS | CAPPED, i32(-ENODEV), request.subarray(0, 16), text),
      outcome(NLMSG_ERROR, ACK_TLVS, i32(-ENODEV), whole, text),
      outcome(NLMSG_DONE, ACK_TLVS, i32(-ENODEV), text),
    ];
    for (const message of cases) {
      expect(() => checkOutcome(message, "Cannot act")).toThrow(
        "Cannot act: Because: ENODEV (No such device)",
      );
    }
    const cut = outcome(NLMSG_ERROR, ACK_TLVS, i32(-ENODEV), request.subarray(0, 16));
    expect(() => checkOutcome(cut, "Cannot act")).toThrow("Cannot act: ENODEV");
  });
});
