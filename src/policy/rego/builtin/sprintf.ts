import { formatValue, typeOf, type Value } from "#policy/rego/value.ts";

/** `%[flags][width][.precision]verb` */
const VERB = /%([-+# 0]*)(\d{1,3})?(?:\.(\d{1,3}))?([a-zA-Z%])/g;

/** Go's fmt.Sprintf as far as policies use it: %v %s %d %f %e %g %x %X %o %b %c %q %t %%. */
export function formatText(format: string, values: readonly Value[]): string {
  let next = 0;
  const text = format.replace(
    VERB,
    (_all, flags: string, width = "", precision: string | undefined, verb: string) => {
      if (verb === "%") return "%";
      const value = values[next++];
      if (value === undefined) return `%!${verb}(MISSING)`;
      const digits = precision === undefined ? undefined : Number(precision);
      return pad(formatOne(verb, value, flags, digits), flags, Number(width));
    },
  );
  const rest = values.slice(next);
  if (rest.length === 0) return text;
  return `${text}%!(EXTRA ${rest.map((value) => `${goType(value)}=${plain(value)}`).join(", ")})`;
}

function formatOne(verb: string, value: Value, flags: string, precision: number | undefined): string {
  const number = typeof value === "number" || typeof value === "bigint" ? value : undefined;
  switch (verb) {
    case "v":
    case "s":
      return precision === undefined ? plain(value) : plain(value).slice(0, precision);
    case "q":
      return JSON.stringify(plain(value));
    case "t":
      return typeof value === "boolean" ? String(value) : wrongVerb(verb, value);
    case "d":
      return isWhole(number) ? signed(number, String(number), flags) : wrongVerb(verb, value);
    case "x":
    case "X":
      return hexadecimal(verb, value, flags);
    case "o":
    case "b":
      return isWhole(number) ? number.toString(verb === "o" ? 8 : 2) : wrongVerb(verb, value);
    case "c":
      return isWhole(number) ? String.fromCodePoint(Number(number)) : wrongVerb(verb, value);
    case "f":
    case "F":
      return number === undefined
        ? wrongVerb(verb, value)
        : signed(number, Number(number).toFixed(precision ?? 6), flags);
    case "e":
      return number === undefined
        ? wrongVerb(verb, value)
        : exponent(Number(number).toExponential(precision ?? 6));
    case "g":
      return number === undefined ? wrongVerb(verb, value) : String(number);
    default:
      return wrongVerb(verb, value);
  }
}

function isWhole(value: number | bigint | undefined): value is number | bigint {
  return typeof value === "bigint" || (value !== undefined && Number.isInteger(value));
}

function signed(value: number | bigint, text: string, flags: string): string {
  if (value < 0) return text;
  return flags.includes("+") ? `+${text}` : flags.includes(" ") ? ` ${text}` : text;
}

function hexadecimal(verb: string, value: Value, flags: string): string {
  const prefix = flags.includes("#") ? "0x" : "";
  let text: string;
  if (typeof value === "string") text = Buffer.from(value).toString("hex");
  else if (typeof value === "bigint" || (typeof value === "number" && Number.isInteger(value)))
    text = value.toString(16);
  else return wrongVerb(verb, value);
  return verb === "X" ? (prefix + text).toUpperCase() : prefix + text;
}

/** Go writes at least two digits. */
function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** A string as it is, anything else as Rego writes it. */
function plain(value: Value): string {
  return typeof value === "string" ? value : formatValue(value);
}

function wrongVerb(verb: string, value: Value): string {
  return `%!${verb}(${goType(value)}=${plain(value)})`;
}

function goType(value: Value): string {
  if (isWhole(value as number)) return "int";
  const type = typeOf(value);
  return type === "number"
    ? "float64"
    : type === "string" || type === "boolean"
      ? type.replace("boolean", "bool")
      : type;
}

function pad(text: string, flags: string, width: number): string {
  if (flags.includes("-")) return text.padEnd(width);
  if (!flags.includes("0")) return text.padStart(width);
  const sign = /^[+-]/.exec(text)?.[0] ?? "";
  return sign + text.slice(sign.length).padStart(width - sign.length, "0");
}
