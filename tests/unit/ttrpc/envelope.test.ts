import { describe, expect, test } from "bun:test";
import { Request, Response } from "#proto/ttrpc.ts";
import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  encodeRoute,
  MAX_METADATA_PAIRS,
} from "#ttrpc/envelope.ts";

const payload = Buffer.from("payload");

describe("envelope", () => {
  test("a request has the bytes that generated code makes", () => {
    const metadata = new Map([
      ["a", ["1", "2"]],
      ["é", ["ü"]],
    ]);
    const ours = encodeRequest(encodeRoute("grpc.Health", "Check"), payload, 5_000_000_000n, metadata);
    const generated = Request.encode(
      Request.fromPartial({
        service: "grpc.Health",
        method: "Check",
        payload,
        timeoutNano: 5_000_000_000n,
        metadata: [
          { key: "a", value: "1" },
          { key: "a", value: "2" },
          { key: "é", value: "ü" },
        ],
      }),
    ).finish();
    expect(Buffer.from(ours).toString("hex")).toBe(Buffer.from(generated).toString("hex"));
  });

  test("a request of generated code is read whole", () => {
    const bytes = Request.encode(
      Request.fromPartial({
        service: "s",
        method: "m",
        payload,
        timeoutNano: -1n,
        metadata: [
          { key: "Key", value: "1" },
          { key: "key", value: "2" },
        ],
      }),
    ).finish();
    const request = decodeRequest(bytes);
    expect(request.service).toBe("s");
    expect(request.method).toBe("m");
    expect(Buffer.from(request.payload).toString()).toBe("payload");
    expect(request.timeoutNano).toBe(-1n);
    expect([...request.metadata]).toEqual([["key", ["1", "2"]]]);
  });

  test("an empty request is one without a route", () => {
    expect(decodeRequest(new Uint8Array(0))).toMatchObject({ service: "", method: "", timeoutNano: 0n });
  });

  test("responses agree with generated code both ways", () => {
    const status = { code: 5, message: "Nothing here" };
    const generated = Response.encode(
      Response.fromPartial({
        status: { ...status, details: [{ typeUrl: "t", value: payload }] },
        payload,
      }),
    ).finish();
    expect(decodeResponse(generated)).toMatchObject({ status });
    expect(Response.decode(encodeResponse(status, payload))).toMatchObject({ status });
    expect(Buffer.from(Response.decode(encodeResponse(undefined, payload)).payload).toString()).toBe(
      "payload",
    );
    expect(encodeResponse(undefined, new Uint8Array(0)).length).toBe(0);
  });

  test("unknown fields are skipped", () => {
    const extra = Buffer.from([
      0x38, 0x05, 0x42, 0x02, 0x61, 0x62, 0x4d, 1, 2, 3, 4, 0x51, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    const known = encodeRequest(encodeRoute("s", "m"), payload, 0n, new Map());
    expect(decodeRequest(Buffer.concat([extra, known, extra]))).toMatchObject({ service: "s", method: "m" });
  });

  test("cut, nested and endless input is refused", () => {
    const whole = encodeRequest(encodeRoute("service", "method"), payload, 1n, new Map([["k", ["v"]]]));
    let refused = 0;
    for (let length = 0; length < whole.length; length++) {
      try {
        decodeRequest(whole.subarray(0, length));
      } catch (error) {
        expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(whole.length / 2);
    for (const bad of [
      [0x0b],
      [0x0c],
      [0x00],
      [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
      [0x0e],
      Array(20).fill(0xff),
    ]) {
      expect(() => decodeRequest(Uint8Array.from(bad as number[]))).toThrow("Cannot decode ttrpc request");
      expect(() => decodeResponse(Uint8Array.from(bad as number[]))).toThrow("Cannot decode ttrpc response");
    }
  });

  test("metadata has a limit in both directions", () => {
    const pairs = Buffer.from(
      Array(MAX_METADATA_PAIRS + 1)
        .fill([0x2a, 0x00])
        .flat(),
    );
    expect(() => decodeRequest(pairs)).toThrow();
    expect(decodeRequest(pairs.subarray(2)).metadata.get("")).toHaveLength(MAX_METADATA_PAIRS);
    const values = Array<string>(MAX_METADATA_PAIRS + 1).fill("v");
    expect(() => encodeRequest(encodeRoute("s", "m"), payload, 0n, new Map([["k", values]]))).toThrow(
      "at most",
    );
  });
});
