import { aggregateBuiltins } from "./aggregate.ts";
import type { Builtin, BuiltinTable } from "./builtin.ts";
import { collectionBuiltins } from "./collection.ts";
import { encodingBuiltins } from "./encoding.ts";
import { numberBuiltins } from "./number.ts";
import { objectBuiltins } from "./object.ts";
import { regexBuiltins } from "./regex.ts";
import { stringBuiltins } from "./string.ts";
import { typeBuiltins } from "./type.ts";

const tables: readonly BuiltinTable[] = [
  aggregateBuiltins,
  collectionBuiltins,
  encodingBuiltins,
  numberBuiltins,
  objectBuiltins,
  regexBuiltins,
  stringBuiltins,
  typeBuiltins,
];

const builtins: ReadonlyMap<string, Builtin> = new Map(tables.flatMap((table) => Object.entries(table)));

/** A function of Rego by its name ("regex.match"), an operator by its own ("plus"). */
export function findBuiltin(name: string): Builtin | undefined {
  return builtins.get(name);
}

export function builtinNames(): string[] {
  return [...builtins.keys()].sort();
}
