import * as v from "valibot";

/** What is said of a setting beside its type, its default and its meaning. */
export interface SettingNote {
  /** Why the key is accepted although nothing reads it; absent for a key that has an effect. */
  readonly without?: string;
  /** A pod's annotation may set it; the annotation's last part, or true when that is the key. */
  readonly annotation?: string | true;
  /** Key of the same table with the patterns that a path given by an annotation must match. */
  readonly allowedBy?: string;
}

/** What the schema carries with each setting, for messages and documentation. */
export interface SettingMetadata extends SettingNote {
  /** Ends the sentence "expected …". */
  readonly expects: string;
}

/**
 * The ways to declare a setting. The valibot schema that they return holds all there is to know about it: type,
 * default, meaning, what a message says was expected, and who may set it.
 */
export function flag(text: string, fallback: boolean, note: SettingNote = {}) {
  const schema = v.pipe(v.boolean(), v.description(text), v.metadata(noted("true or false", note)));
  return v.optional(schema, fallback);
}

export function text(meaning: string, fallback: string, note: SettingNote = {}) {
  return v.optional(
    v.pipe(v.string(), v.description(meaning), v.metadata(noted("a string", note))),
    fallback,
  );
}

/** A string that has to match; `expects` says in words what. */
export function pattern(
  meaning: string,
  fallback: string,
  { regex, expects, ...note }: SettingNote & { readonly regex: RegExp; readonly expects: string },
) {
  const schema = v.pipe(v.string(), v.regex(regex), v.description(meaning), v.metadata(noted(expects, note)));
  return v.optional(schema, fallback);
}

export function choice<const T extends string>(
  meaning: string,
  fallback: NoInfer<T>,
  { options, ...note }: SettingNote & { readonly options: readonly T[] },
) {
  const expects = `one of ${options.map((option) => JSON.stringify(option)).join(", ")}`;
  const schema = v.pipe(v.picklist(options), v.description(meaning), v.metadata(noted(expects, note)));
  return v.optional(schema, fallback);
}

export interface NumberNote extends SettingNote {
  readonly min: number;
  readonly max: number;
  /** In the plural: `MiB`, `seconds`. */
  readonly unit?: string;
}

export function whole(meaning: string, fallback: number, note: NumberNote) {
  const { min, max, unit, ...rest } = note;
  const expects = `a whole number${unit === undefined ? "" : ` of ${unit}`} from ${min} to ${max}`;
  const schema = v.pipe(
    v.number(),
    v.integer(),
    v.minValue(min),
    v.maxValue(max),
    v.description(meaning),
    v.metadata(noted(expects, rest)),
  );
  return v.optional(schema, fallback);
}

export function decimal(meaning: string, fallback: number, note: NumberNote) {
  const { min, max, unit, ...rest } = note;
  const expects = `a number${unit === undefined ? "" : ` of ${unit}`} from ${min} to ${max}`;
  const schema = v.pipe(
    v.number(),
    v.finite(),
    v.minValue(min),
    v.maxValue(max),
    v.description(meaning),
    v.metadata(noted(expects, rest)),
  );
  return v.optional(schema, fallback);
}

export function list(meaning: string, fallback: readonly string[], note: SettingNote = {}) {
  const schema = v.pipe(
    v.array(v.string()),
    v.description(meaning),
    v.metadata(noted("a list of strings", note)),
  );
  return v.optional(schema, [...fallback]);
}

/** A list of tables with members of their own; `expects` says which. */
export function tables<const T extends v.ObjectEntries>(
  meaning: string,
  entries: T,
  { expects, ...note }: SettingNote & { readonly expects: string },
) {
  const schema = v.pipe(
    v.array(v.strictObject(entries)),
    v.description(meaning),
    v.metadata(noted(expects, note)),
  );
  return v.optional(schema, []);
}

function noted(expects: string, note: SettingNote): SettingMetadata & Record<string, unknown> {
  return { ...note, expects };
}

/** For keys of parts that are still to come. */
export const NOT_YET = "no part of hako reads it yet";
