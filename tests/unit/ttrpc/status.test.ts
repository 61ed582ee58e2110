import { describe, expect, test } from "bun:test";
import { type ErrorCode, HakoError } from "#base/error.ts";
import { errorToStatus, statusToError } from "#ttrpc/status.ts";

/** google.rpc.Code in the order of its numbers, from 1. */
const CODES: ErrorCode[] = [
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

describe("status", () => {
  test("every code has its number of google.rpc.Code and comes back", () => {
    CODES.forEach((code, index) => {
      const status = errorToStatus(new HakoError(code, "Message"));
      expect(status).toEqual({ code: index + 1, message: "Message" });
      expect(statusToError(status)).toMatchObject({ code, message: "Message" });
    });
  });

  test("success is no error, an unknown code is UNKNOWN", () => {
    expect(statusToError(undefined)).toBeUndefined();
    expect(statusToError({ code: 0, message: "ignored" })).toBeUndefined();
    expect(statusToError({ code: 99, message: "" })).toMatchObject({
      code: "UNKNOWN",
      message: "No message given",
    });
    expect(statusToError({ code: -1, message: "x" })).toMatchObject({ code: "UNKNOWN" });
  });

  test("the causes of an error travel in its message", () => {
    const error = new HakoError("INTERNAL", "Cannot start", { cause: new Error("execve: ENOENT") });
    expect(errorToStatus(error).message).toBe("Cannot start: execve: ENOENT");
    expect(errorToStatus("text")).toEqual({ code: 13, message: "text" });
  });

  test("a peer's message is shortened and cannot steer a terminal", () => {
    expect(statusToError({ code: 2, message: "a\u001b[2Jb\nc\td\u0085" })?.message).toBe(
      "a\uFFFD[2Jb\nc\td\uFFFD",
    );
    expect(statusToError({ code: 2, message: "m".repeat(1 << 20) })?.message.length).toBeLessThan(9000);
    expect(errorToStatus(new HakoError("UNKNOWN", "m".repeat(1 << 20))).message.length).toBeLessThan(9000);
  });
});
