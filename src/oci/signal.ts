import { constants } from "node:os";
import { HakoError } from "#base/error.ts";

/** Numbers of the first and last real-time signal as the C library hands them out (signal(7)). */
const SIGRTMIN = 34;
const SIGRTMAX = 64;
const numbers: Readonly<Record<string, number>> = { ...constants.signals };

/**
 * The number of `TERM`, `SIGTERM`, `sigterm`, `15`, `SIGRTMIN+3` or `SIGRTMAX-1`, as image configurations and users
 * write it. Throws INVALID_ARGUMENT.
 */
export function parseSignal(text: string): number {
  const upper = text.toUpperCase();
  const name = upper.startsWith("SIG") ? upper : `SIG${upper}`;
  const number = /^\d{1,2}$/.test(text) ? Number(text) : (numbers[name] ?? parseRealTime(name));
  if (number !== undefined && number >= 1 && number <= SIGRTMAX) return number;
  throw new HakoError(
    "INVALID_ARGUMENT",
    `Unknown signal "${text}": use a name such as SIGTERM or a number from 1 to 64`,
  );
}

function parseRealTime(name: string): number | undefined {
  const match = /^SIGRTM(IN|AX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (!match) return undefined;
  const [, end, sign, distance = "0"] = match;
  const number = (end === "IN" ? SIGRTMIN : SIGRTMAX) + (sign === "-" ? -1 : 1) * Number(distance);
  return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
}
