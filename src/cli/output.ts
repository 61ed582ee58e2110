import { writeSync } from "node:fs";
import { HakoError } from "#base/error.ts";

const STDOUT = 1;
const STDERR = 2;
const RETRY_MS = 5;

/** Prints text. A reader that has gone away ends the output quietly, as for every tool in a pipeline. */
export function print(text: string): void {
  writeAll(STDOUT, text.endsWith("\n") ? text : `${text}\n`);
}

/** Prints a value as JSON, indented for people. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, undefined, 2));
}

/** One line on stderr that begins with `hako: `. */
export function printError(message: string): void {
  writeAll(STDERR, `hako: ${printable(message)}\n`);
}

/** Lines on stderr as they are, made safe for a terminal. */
export function printDiagnostic(text: string): void {
  writeAll(STDERR, text.split("\n").map(printable).join("\n"));
}

/** The error, its causes, and what the guest said last when the virtual machine is to blame. */
export function reportError(caught: unknown): void {
  const error = HakoError.from(caught);
  printError(error.fullMessage);
  printConsoleTail(consoleTailOf(error));
  if (process.env.HAKO_DEBUG && error.stack) printDiagnostic(`${error.stack}\n`);
}

/** What a guest has printed last; nothing for nothing. */
export function printConsoleTail(tail: string | undefined): void {
  if (tail) printDiagnostic(`The guest's console ended with:\n${indent(tail)}\n`);
}

/** The guest's last words, in an error that a guest is to blame for. */
export function consoleTailOf(error: HakoError): string | undefined {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if ("consoleTail" in cause && typeof cause.consoleTail === "string" && cause.consoleTail !== "") {
      return cause.consoleTail;
    }
  }
  return undefined;
}

function indent(text: string): string {
  const lines = text.trimEnd().split(/\r?\n/).slice(-20);
  return lines.map((line) => `  ${line}`).join("\n");
}

/** Guests and files can put anything into messages: nothing but text may reach the terminal. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).padStart(2, "0");
    return character === "\n" ? " " : `\\x${code}`;
  });
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let offset = 0; offset < bytes.length; ) {
    const written = tryWrite(fd, bytes.subarray(offset));
    if (written === undefined) return;
    offset += written;
  }
}

/** Undefined when nobody reads any more. */
function tryWrite(fd: number, bytes: Uint8Array): number | undefined {
  try {
    return writeSync(fd, bytes);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EPIPE" || code === "EBADF" || code === "EIO") return undefined;
    if (code !== "EAGAIN") throw error;
    // The other end set our descriptor to non-blocking and is slow.
    Bun.sleepSync(RETRY_MS);
    return 0;
  }
}
