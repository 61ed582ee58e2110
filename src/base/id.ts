import { HakoError } from "./error.ts";

/** 64 random hex digits, as docker and containerd make them. */
export function randomId(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/**
 * Checks an id that becomes part of paths: 1 to 128 of letters, digits, "_", ".", "-", the first a letter or
 * digit. `what` names it in the error: `container id`. Throws INVALID_ARGUMENT, returns the id.
 */
export function validateId(id: string, what: string): string {
  if (idPattern.test(id)) return id;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot use ${JSON.stringify(id.slice(0, 160))} as ${what}: use 1 to 128 letters, digits, "_", "." and "-", beginning with a letter or digit`,
  );
}
