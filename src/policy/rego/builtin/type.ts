import { type TypeName, typeOf } from "#policy/rego/value.ts";
import { type BuiltinTable, unary } from "./builtin.ts";

function isType(name: TypeName) {
  return unary((a) => typeOf(a) === name);
}

/** Types of values. */
export const typeBuiltins: BuiltinTable = {
  is_null: isType("null"),
  is_boolean: isType("boolean"),
  is_number: isType("number"),
  is_string: isType("string"),
  is_array: isType("array"),
  is_object: isType("object"),
  is_set: isType("set"),
  type_name: unary(typeOf),
};
