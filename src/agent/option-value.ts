import { HakoError } from "#base/error.ts";
import { type LogLevel, logLevels } from "#telemetry/log.ts";

/** Where the agent answers. */
export type ServerAddress =
  | { readonly kind: "vsock"; readonly port: number }
  | { readonly kind: "virtio-serial"; readonly name: string }
  | { readonly kind: "unix"; readonly path: string }
  /** On the loopback address only. */
  | { readonly kind: "tcp"; readonly port: number };

function refuse(what: string, value: string, hint: string): never {
  throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(value)} as ${what}: ${hint}`);
}

/**
 * Reads `vsock://CID:PORT` (the context id does not matter to a listener), `virtio-serial://PORT-NAME`,
 * `unix://PATH`, `unix://@ABSTRACT` and `tcp://127.0.0.1:PORT`.
 */
export function parseServerAddress(text: string): ServerAddress {
  const vsock = /^vsock:\/\/(?:-1|\d{1,10}):(\d{1,10})$/.exec(text);
  if (vsock) return { kind: "vsock", port: parsePort("vsock port", vsock[1] ?? "") };
  const serial = /^virtio-serial:\/\/([A-Za-z0-9._-]{1,64})$/.exec(text);
  if (serial) return { kind: "virtio-serial", name: serial[1] ?? "" };
  const unix = /^unix:\/\/(.{1,107})$/.exec(text);
  if (unix) return { kind: "unix", path: unix[1] ?? "" };
  const tcp = /^tcp:\/\/127\.0\.0\.1:(\d{1,5})$/.exec(text);
  if (tcp) return { kind: "tcp", port: parseNumber("TCP port", tcp[1] ?? "", 0xffff) };
  const forms = "write vsock://-1:PORT, virtio-serial://NAME, unix://PATH or tcp://127.0.0.1:PORT";
  refuse("server address", text, forms);
}

/** A whole number from 0 to `max`. */
export function parseNumber(what: string, text: string, max: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) refuse(what, text, `it must be a number up to ${max}`);
  return value;
}

export function parsePort(what: string, text: string): number {
  return parseNumber(what, text, 0xffff_ffff);
}

/** A word without a value, as flags on the kernel command line are, means yes. */
export function parseBoolean(what: string, text: string): boolean {
  const word = text.toLowerCase();
  if (["", "true", "1", "yes", "on"].includes(word)) return true;
  if (["false", "0", "no", "off"].includes(word)) return false;
  refuse(what, text, "write true or false");
}

export function parseChoice<T extends string>(what: string, text: string, choices: readonly T[]): T {
  return choices.find((choice) => choice === text) ?? refuse(what, text, `use one of ${choices.join(", ")}`);
}

/** Takes Kata's level names too; slog's "critical" is our "error". */
export function parseLogLevel(text: string): LogLevel {
  const name = text.toLowerCase() === "critical" ? "error" : text.toLowerCase();
  return parseChoice("log level", name, logLevels);
}

export function parseDirectory(what: string, text: string): string {
  if (!/^(\/[^/]+)+$/.test(text) || /\/\.\.?(\/|$)/.test(text)) {
    refuse(what, text, "it must be an absolute path without . and ..");
  }
  return text;
}
