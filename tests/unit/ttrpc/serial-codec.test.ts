import { describe, expect, test } from "bun:test";
import { encodeGreeting, encodeSerial, makeNonce, SerialDecoder } from "#ttrpc/serial-codec.ts";

const NONCE = "0123456789abcdef0123456789abcdef";

/** What a decoder saw: bytes in hexadecimal, joined between events, and the events. */
function decode(pieces: readonly Uint8Array[]): string[] {
  const seen: string[] = [];
  let bytes = Buffer.alloc(0);
  const event = (text: string) => {
    if (bytes.length > 0) seen.push(bytes.toString("hex"));
    bytes = Buffer.alloc(0);
    if (text !== "") seen.push(text);
  };
  const decoder = new SerialDecoder({
    bytes: (chunk) => {
      bytes = Buffer.concat([bytes, chunk]);
    },
    greeting: (kind, nonce) => event(`${kind} ${nonce}`),
    damaged: () => event("damaged"),
  });
  for (const piece of pieces) decoder.push(Uint8Array.from(piece));
  event("");
  return seen;
}

function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let offset = 0; offset < bytes.length; offset += size)
    pieces.push(bytes.subarray(offset, offset + size));
  return pieces;
}

describe("serial codec", () => {
  test("bytes without an escape go as they are, without a copy", () => {
    const bytes = Buffer.from("plain");
    expect(encodeSerial(bytes)).toBe(bytes);
  });

  test("any bytes come back, however they are cut", () => {
    for (const hex of [
      "fe",
      "fefe",
      "fefefe01fe02",
      "00fe01ff",
      "61fe",
      "fe61",
      "61fefe62fe0163",
      "fe".repeat(40),
    ]) {
      const encoded = encodeSerial(Buffer.from(hex, "hex"));
      for (let size = 1; size <= encoded.length; size++) expect(decode(cut(encoded, size))).toEqual([hex]);
    }
    const random = crypto.getRandomValues(new Uint8Array(60_000));
    expect(decode(cut(encodeSerial(random), 4096))).toEqual([Buffer.from(random).toString("hex")]);
  });

  test("greetings are found between session bytes, however they are cut", () => {
    const stream = Buffer.concat([
      encodeSerial(Buffer.from("61fe62", "hex")),
      encodeGreeting("hello", NONCE),
      encodeGreeting("accept", NONCE),
      Buffer.from("63", "hex"),
      encodeGreeting("close", NONCE),
    ]);
    for (let size = 1; size <= stream.length; size++) {
      expect(decode(cut(stream, size))).toEqual([
        "61fe62",
        `hello ${NONCE}`,
        `accept ${NONCE}`,
        "63",
        `close ${NONCE}`,
      ]);
    }
  });

  test("a greeting is found after a stream that was cut anywhere", () => {
    const before = Buffer.concat([
      encodeSerial(Buffer.from("fefefe61fe", "hex")),
      encodeGreeting("hello", NONCE),
    ]);
    const next = "f".repeat(32);
    for (let length = 0; length < before.length; length++) {
      const stream = Buffer.concat([before.subarray(0, length), encodeGreeting("hello", next)]);
      for (const size of [1, 7, stream.length])
        expect(decode(cut(stream, size)).at(-1)).toBe(`hello ${next}`);
    }
  });

  test("session bytes cannot forge a greeting", () => {
    const forged = encodeGreeting("hello", NONCE);
    expect(decode([encodeSerial(forged)])).toEqual([Buffer.from(forged).toString("hex")]);
  });

  test("an escape without a meaning and a nonce that is none are damage", () => {
    expect(decode([Buffer.from("61fe7762", "hex")])).toEqual(["61", "damaged", "62"]);
    expect(decode([Buffer.concat([Buffer.from([0xfe, 0x02]), Buffer.from("X".repeat(32))])])).toEqual([
      "damaged",
    ]);
  });

  test("a nonce is random and has a form", () => {
    expect(makeNonce()).toMatch(/^[0-9a-f]{32}$/);
    expect(makeNonce()).not.toBe(makeNonce());
    expect(() => encodeGreeting("hello", "short")).toThrow("Cannot greet");
  });

  test("random bytes are taken apart without harm, and the next greeting is found", () => {
    let state = 1;
    const random = () => {
      state = (state * 48271) % 0x7fffffff;
      return state;
    };
    for (let round = 0; round < 500; round++) {
      const noise = Uint8Array.from({ length: random() % 60 }, () =>
        random() % 3 === 0 ? 0xfe : random() % 6,
      );
      const seen = decode([noise, encodeGreeting("hello", NONCE)]);
      expect(seen.at(-1)).toBe(`hello ${NONCE}`);
    }
  });
});
