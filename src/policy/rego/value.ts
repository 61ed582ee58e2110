/**
 * The values of Rego: those of JSON and sets. Numbers are JavaScript's, and bigint for integers beyond 2^53, so that two
 * of them are equal only when they are. Bytes of a request count as an array of numbers without being copied.
 */
export type Value = null | boolean | number | bigint | string | RegoArray | RegoObject | RegoSet;

export type RegoArray = readonly Value[] | Uint8Array;

export type TypeName = "null" | "boolean" | "number" | "string" | "array" | "object" | "set";

type Entry = readonly [key: Value, value: Value];
type Primitive = null | boolean | number | bigint | string;

/** Elements looked at by comparisons and hashes since it was last read: they belong to no step of their own. */
export const effort = { count: 0 };

/** Members by key: primitives by themselves, composites by their hash. */
class Members {
  readonly #plain = new Map<Primitive, Entry>();
  readonly #composite = new Map<number, Entry[]>();
  #composites = 0;

  get size(): number {
    return this.#plain.size + this.#composites;
  }

  find(key: Value): Entry | undefined {
    if (typeof key !== "object" || key === null) return this.#plain.get(key);
    return this.#composite.get(hashOf(key))?.find(([known]) => equalValues(known, key));
  }

  put(entry: Entry): void {
    const [key] = entry;
    if (typeof key !== "object" || key === null) {
      this.#plain.set(key, entry);
      return;
    }
    const hash = hashOf(key);
    const bucket = this.#composite.get(hash) ?? [];
    const at = bucket.findIndex(([known]) => equalValues(known, key));
    if (at >= 0) bucket[at] = entry;
    else {
      bucket.push(entry);
      this.#composites++;
    }
    this.#composite.set(hash, bucket);
  }

  sorted(): Entry[] {
    return [...this.#plain.values(), ...[...this.#composite.values()].flat()].sort((a, b) =>
      compareValues(a[0], b[0]),
    );
  }
}

/** An object of Rego: any value can be a key. Built once, then only read. */
export class RegoObject {
  #members: Members | undefined;
  readonly #load: (() => Iterable<Entry>) | undefined;
  #sorted: Entry[] | undefined;

  /** `load` gives the members at the first use. */
  constructor(load?: () => Iterable<Entry>) {
    this.#load = load;
  }

  static of(entries: Iterable<Entry>): RegoObject {
    const object = new RegoObject();
    for (const [key, value] of entries) object.set(key, value);
    return object;
  }

  get #all(): Members {
    if (this.#members) return this.#members;
    this.#members = new Members();
    if (this.#load) for (const entry of this.#load()) this.#members.put(entry);
    return this.#members;
  }

  get size(): number {
    return this.#all.size;
  }

  get(key: Value): Value | undefined {
    return this.#all.find(key)?.[1];
  }

  has(key: Value): boolean {
    return this.#all.find(key) !== undefined;
  }

  /** Only while the object is being built. */
  set(key: Value, value: Value): void {
    this.#all.put([key, value]);
    this.#sorted = undefined;
  }

  /** In the order of the keys. */
  entries(): readonly Entry[] {
    this.#sorted ??= this.#all.sorted();
    return this.#sorted;
  }
}

/** A set of Rego. Built once, then only read. */
export class RegoSet {
  readonly #members = new Members();
  #sorted: Value[] | undefined;

  static of(items: Iterable<Value>): RegoSet {
    const set = new RegoSet();
    for (const item of items) set.add(item);
    return set;
  }

  get size(): number {
    return this.#members.size;
  }

  has(item: Value): boolean {
    return this.#members.find(item) !== undefined;
  }

  /** Only while the set is being built. */
  add(item: Value): void {
    this.#members.put([item, item]);
    this.#sorted = undefined;
  }

  /** In order. */
  items(): readonly Value[] {
    this.#sorted ??= this.#members.sorted().map(([item]) => item);
    return this.#sorted;
  }
}

/** Nobody outside can choose values that meet in one bucket. */
const SEED = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
const hashes = new WeakMap<object, number>();

/** A hash of a composite value, the same for equal ones; computed once. */
function hashOf(value: RegoArray | RegoObject | RegoSet): number {
  const known = hashes.get(value);
  if (known !== undefined) return known;
  const parts =
    value instanceof RegoObject
      ? value.entries().flatMap(([key, member]) => [hashAny(key), hashAny(member)])
      : Array.from(value instanceof RegoSet ? value.items() : value, (item) => hashAny(item as Value));
  effort.count += parts.length;
  const hash = Bun.hash.xxHash32(Uint32Array.from([typeOrder[typeOf(value)], ...parts]), SEED);
  hashes.set(value, hash);
  return hash;
}

function hashAny(value: Value): number {
  if (typeof value === "object" && value !== null) return hashOf(value);
  return Bun.hash.xxHash32(`${typeof value}${value}`, SEED);
}

export function isArray(value: Value | undefined): value is RegoArray {
  return Array.isArray(value) || value instanceof Uint8Array;
}

export function typeOf(value: Value): TypeName {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "number":
      return typeof value as TypeName;
    case "bigint":
      return "number";
  }
  if (value === null) return "null";
  if (value instanceof RegoObject) return "object";
  return value instanceof RegoSet ? "set" : "array";
}

const typeOrder: Readonly<Record<TypeName, number>> = {
  null: 0,
  boolean: 1,
  number: 2,
  string: 3,
  array: 4,
  object: 5,
  set: 6,
};

/** Rego's order of all values: by type, then within the type. Negative, zero or positive. */
export function compareValues(a: Value, b: Value): number {
  if (a === b) return 0;
  const type = typeOf(a);
  const other = typeOf(b);
  if (type !== other) return typeOrder[type] - typeOrder[other];
  switch (type) {
    case "number":
      return compareOrdered(a as number, b as number);
    case "string":
      return compareStrings(a as string, b as string);
    case "boolean":
      return a === false ? -1 : 1;
    case "array":
      return compareLists(a as RegoArray, b as RegoArray);
    case "set":
      return compareLists((a as RegoSet).items(), (b as RegoSet).items());
    case "object":
      return compareObjects(a as RegoObject, b as RegoObject);
    case "null":
      return 0;
  }
}

/** Numbers and bigints compare by value across the two types. */
function compareOrdered(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** By code point, as bytes of UTF-8 compare; JavaScript compares units of UTF-16. */
function compareStrings(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  if (at === length) return a.length - b.length;
  const [left, right] = [a.charCodeAt(at), b.charCodeAt(at)];
  const surrogates = left >= 0xd800 && right >= 0xd800;
  return surrogates ? Buffer.compare(Buffer.from(a), Buffer.from(b)) : left - right;
}

function compareLists(a: RegoArray, b: RegoArray): number {
  for (let index = 0; index < a.length && index < b.length; index++) {
    effort.count++;
    const order = compareValues(a[index] as Value, b[index] as Value);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function compareObjects(a: RegoObject, b: RegoObject): number {
  const [left, right] = [a.entries(), b.entries()];
  const keys = compareLists(
    left.map(([key]) => key),
    right.map(([key]) => key),
  );
  if (keys !== 0) return keys;
  return compareLists(
    left.map(([, value]) => value),
    right.map(([, value]) => value),
  );
}

export function equalValues(a: Value, b: Value): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object") return false;
  return compareValues(a, b) === 0;
}

/** The member, element or item that a reference names; undefined when there is none. */
export function lookupValue(base: Value | undefined, key: Value): Value | undefined {
  if (base instanceof RegoObject) return base.get(key);
  if (base instanceof RegoSet) return base.has(key) ? key : undefined;
  if (!isArray(base) || typeof key !== "number") return undefined;
  return base[key];
}

/** A number in the one form that it has: bigint only where a number would not be exact. */
export function exactNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** What JSON.parse, or a program, made; numbers beyond 2^53 are only exact as bigint. */
export function fromJson(json: unknown): Value {
  if (json === null || json === undefined) return null;
  if (typeof json === "bigint") return exactNumber(json);
  if (Array.isArray(json)) return json.map(fromJson);
  if (json instanceof Uint8Array || json instanceof RegoObject || json instanceof RegoSet) return json;
  if (typeof json !== "object") return json as string | number | boolean;
  return RegoObject.of(Object.entries(json).map(([key, value]) => [key, fromJson(value)] as const));
}

/** Plain data; sets become arrays, keys that are not strings their text. */
export function toJson(value: Value): unknown {
  if (value instanceof RegoSet) return value.items().map(toJson);
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(toJson);
  if (!(value instanceof RegoObject)) return value;
  const members = value.entries().map(([key, member]) => [keyText(key), toJson(member)] as const);
  return Object.fromEntries(members);
}

/** An object of JSON has strings as keys: others are written as JSON. */
export function keyText(key: Value): string {
  return typeof key === "string" ? key : formatJson(key);
}

/** JSON text, members sorted; exact for every integer. */
export function formatJson(value: Value): string {
  if (value instanceof RegoSet) return `[${value.items().map(formatJson).join(",")}]`;
  if (isArray(value)) return `[${Array.from(value, (item) => formatJson(item as Value)).join(",")}]`;
  if (!(value instanceof RegoObject))
    return typeof value === "bigint" ? String(value) : JSON.stringify(value);
  const members = value
    .entries()
    .map(([key, member]) => `${JSON.stringify(keyText(key))}:${formatJson(member)}`);
  return `{${members.join(",")}}`;
}

/** The text by which Rego shows a value (print, sprintf %v) and which no other value has. */
export function formatValue(value: Value): string {
  if (value instanceof RegoSet)
    return value.size === 0 ? "set()" : `{${value.items().map(formatValue).join(", ")}}`;
  if (isArray(value)) return `[${Array.from(value, (item) => formatValue(item as Value)).join(", ")}]`;
  if (!(value instanceof RegoObject))
    return typeof value === "bigint" ? String(value) : JSON.stringify(value);
  const members = value.entries().map(([key, member]) => `${formatValue(key)}: ${formatValue(member)}`);
  return `{${members.join(", ")}}`;
}
