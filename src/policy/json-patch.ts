import { HakoError } from "#base/error.ts";
import { equalValues, isArray, RegoObject, type Value } from "./rego/value.ts";

const OPERATIONS_MAX = 1000;
const DEPTH_MAX = 64;

function refuse(problem: string): never {
  throw new HakoError("INVALID_ARGUMENT", `Cannot change the policy's state: ${problem}`);
}

/**
 * Applies a JSON patch (RFC 6902), given as a value, and returns the changed document; the one given stays as it is.
 * Throws INVALID_ARGUMENT when an operation cannot be carried out.
 */
export function applyPatch(document: Value, patch: Value): Value {
  if (!isArray(patch)) refuse("the operations are no array");
  if (patch.length > OPERATIONS_MAX) refuse(`there are more than ${OPERATIONS_MAX} operations`);
  return Array.from(patch).reduce<Value>(
    (changed, operation) => applyOne(changed, operation as Value),
    document,
  );
}

function applyOne(document: Value, operation: Value): Value {
  if (!(operation instanceof RegoObject)) refuse("an operation is no object");
  const name = operation.get("op");
  const path = pointer(operation.get("path"));
  switch (name) {
    case "add":
      return change(document, path, () => member(operation, "value"), "add");
    case "replace":
      return change(document, path, () => member(operation, "value"), "replace");
    case "remove":
      return change(document, path, () => undefined, "remove");
    case "move": {
      const from = pointer(operation.get("from"));
      const value = find(document, from);
      return change(
        change(document, from, () => undefined, "remove"),
        path,
        () => value,
        "add",
      );
    }
    case "copy": {
      const value = find(document, pointer(operation.get("from")));
      return change(document, path, () => value, "add");
    }
    case "test":
      if (equalValues(find(document, path), member(operation, "value"))) return document;
      return refuse("a test failed");
    default:
      return refuse(`operation ${JSON.stringify(String(name))} is unknown`);
  }
}

function member(operation: RegoObject, name: string): Value {
  const value = operation.get(name);
  return value === undefined ? refuse(`an operation has no "${name}"`) : value;
}

/** The steps of a JSON pointer (RFC 6901). */
function pointer(text: Value | undefined): string[] {
  if (typeof text !== "string" || (text !== "" && !text.startsWith("/"))) refuse("a path is no JSON pointer");
  const steps = text.split("/").slice(1);
  if (steps.length > DEPTH_MAX) refuse(`a path has more than ${DEPTH_MAX} steps`);
  return steps.map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function find(document: Value, path: readonly string[]): Value {
  let value: Value | undefined = document;
  for (const step of path) {
    if (value instanceof RegoObject) value = value.get(step);
    else value = isArray(value) ? (value[indexOf(step, value.length)] as Value | undefined) : undefined;
  }
  return value === undefined ? refuse(`there is nothing at "/${path.join("/")}"`) : value;
}

function indexOf(step: string, end: number): number {
  const index = /^(0|[1-9]\d{0,8})$/.test(step) ? Number(step) : Number.NaN;
  return index <= end ? index : refuse(`there is no element "${step}"`);
}

type Kind = "add" | "replace" | "remove";

/** Copies what leads to the place and changes the copy. */
function change(document: Value, path: readonly string[], make: () => Value | undefined, kind: Kind): Value {
  const [step, ...rest] = path;
  if (step === undefined) return make() ?? null;
  if (document instanceof RegoObject) return changeObject(document, step, rest, make, kind);
  if (isArray(document)) return changeArray(document, step, rest, make, kind);
  return refuse(`"${step}" is below something that has no members`);
}

function changeObject(
  object: RegoObject,
  step: string,
  rest: readonly string[],
  make: () => Value | undefined,
  kind: Kind,
): RegoObject {
  const known = object.get(step);
  if (known === undefined && (rest.length > 0 || kind !== "add")) refuse(`there is no member "${step}"`);
  const value = rest.length > 0 ? change(known ?? null, rest, make, kind) : make();
  const members = object.entries().filter(([key]) => key !== step);
  return RegoObject.of(value === undefined ? members : [...members, [step, value]]);
}

function changeArray(
  given: readonly Value[] | Uint8Array,
  step: string,
  rest: readonly string[],
  make: () => Value | undefined,
  kind: Kind,
): Value[] {
  const array = Array.from(given, (item) => item as Value);
  const last = kind === "add" && rest.length === 0 ? array.length : array.length - 1;
  const index = step === "-" && kind === "add" && rest.length === 0 ? array.length : indexOf(step, last);
  if (rest.length > 0) array[index] = change(array[index] ?? null, rest, make, kind);
  else if (kind === "add") array.splice(index, 0, make() ?? null);
  else if (kind === "remove") array.splice(index, 1);
  else array[index] = make() ?? null;
  return array;
}
