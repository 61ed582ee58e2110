import { HakoError } from "#base/error.ts";

/** Words joined to a kernel command line, with its NUL. INVALID_ARGUMENT when it exceeds what the kernel takes. */
export function commandLine(words: readonly string[], maxBytes: number): Buffer {
  const text = Buffer.from(`${words.join(" ")}\0`, "latin1");
  if (text.length <= maxBytes) return text;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Cannot pass ${text.length} bytes of command line: this kernel takes ${maxBytes}`,
  );
}
