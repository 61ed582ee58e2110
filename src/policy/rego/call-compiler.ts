import type { Builtin } from "./builtin/builtin.ts";
import { findBuiltin } from "./builtin/registry.ts";
import type { Bound, Evaluate, Frame, Step } from "./compiled.ts";
import { syntaxError } from "./lexer.ts";
import type { Machine } from "./machine.ts";
import type { Scope } from "./scope.ts";
import type { Term } from "./syntax.ts";
import { type Context, compileValue, compileValues } from "./term-compiler.ts";
import { equalValues, RegoObject, RegoSet, type Value } from "./value.ts";

/** Compiles the call of a function, of the policy's own or of Rego's, and what follows it. */
export function compileCall(
  { name, args, line }: Term & { kind: "call" },
  scope: Scope,
  bound: Bound,
  context: Context,
  then: (value: Evaluate) => Step,
): Step {
  const { program, machine } = context;
  if (name === "print") return then(compilePrint(args, scope, bound, context));
  const rule = program.findFunction(name);
  if (rule !== undefined) {
    program.checkArity(rule, args.length, line);
    return compileValues(args, scope, bound, context, (values) =>
      then((frame) => {
        const given = evaluateAll(values, frame);
        return given && program.call(rule, given);
      }),
    );
  }
  const builtin = findBuiltin(name);
  if (!builtin) throw syntaxError(line, `there is no function "${name}"`);
  const [least, most] = builtin.arity;
  if (args.length < least || args.length > most) {
    throw syntaxError(line, `function "${name}" takes ${least} arguments, not ${args.length}`);
  }
  return compileValues(args, scope, bound, context, (values) => then(callBuiltin(builtin, values, machine)));
}

function callBuiltin({ call }: Builtin, values: readonly Evaluate[], machine: Machine): Evaluate {
  const [first, second] = values;
  if (first && second && values.length === 2) {
    return (frame) => {
      const a = first(frame);
      const b = a === undefined ? undefined : second(frame);
      if (a === undefined || b === undefined) return undefined;
      machine.step();
      return call([a, b], machine);
    };
  }
  return (frame) => {
    const given = evaluateAll(values, frame);
    if (!given) return undefined;
    machine.step();
    return call(given, machine);
  };
}

export function evaluateAll(values: readonly Evaluate[], frame: Frame): Value[] | undefined {
  const given: Value[] = [];
  for (const evaluate of values) {
    const value = evaluate(frame);
    if (value === undefined) return undefined;
    given.push(value);
  }
  return given;
}

/** Printing never fails a condition, and costs nothing while nobody looks. */
function compilePrint(args: readonly Term[], scope: Scope, bound: Bound, context: Context): Evaluate {
  const { machine } = context;
  const words = args.map((arg) => compileSingle(arg, scope, bound, context));
  return (frame) => {
    if (machine.observer) machine.print(words.map((word) => word(frame)));
    return true;
  };
}

/** A term as a function of its own: its first value, if it has several. */
function compileSingle(term: Term, scope: Scope, bound: Bound, context: Context): Evaluate {
  const slot = scope.temporary();
  const step = compileValue(term, scope, new Set(bound), context, (value) => (frame) => {
    frame[slot] = value(frame);
    return true;
  });
  return (frame) => {
    frame[slot] = undefined;
    step(frame);
    return frame[slot];
  };
}

export function makeArray(items: readonly Evaluate[], machine: Machine): Evaluate {
  return (frame) => {
    const values = evaluateAll(items, frame);
    machine.chargeElements(items.length);
    return values;
  };
}

export function makeSet(items: readonly Evaluate[], machine: Machine): Evaluate {
  return (frame) => {
    const values = evaluateAll(items, frame);
    machine.chargeMembers(items.length);
    return values && RegoSet.of(values);
  };
}

/** `items` holds keys and values by turns. */
export function makeObject(items: readonly Evaluate[], machine: Machine): Evaluate {
  return (frame) => {
    const values = evaluateAll(items, frame);
    if (!values) return undefined;
    machine.chargeMembers(items.length);
    const object = new RegoObject();
    for (let index = 0; index < values.length; index += 2) {
      const [key, value] = [values[index] as Value, values[index + 1] as Value];
      const known = object.get(key);
      if (known !== undefined && !equalValues(known, value)) return undefined;
      object.set(key, value);
    }
    return object;
  };
}
