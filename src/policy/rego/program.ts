import { HakoError } from "#base/error.ts";
import { compileBody } from "./body-compiler.ts";
import type { Bound, Frame, Step } from "./compiled.ts";
import { syntaxError } from "./lexer.ts";
import { conflict, Machine } from "./machine.ts";
import { compileMatch } from "./pattern-compiler.ts";
import { FrameLayout, namesDeep, Scope } from "./scope.ts";
import type { Clause, Literal, Module, RuleKind, Term } from "./syntax.ts";
import { type Context, compileHeads, foldConstant } from "./term-compiler.ts";
import { equalValues, RegoObject, RegoSet, type Value } from "./value.ts";

const UNDEFINED = Symbol("undefined");
const EVALUATING = Symbol("evaluating");
/** Where a clause gets the arguments of a call. */
const RESULT = 0;

interface Rule {
  readonly index: number;
  readonly name: string;
  readonly kind: RuleKind;
  readonly arity: number;
  readonly clauses: CompiledClause[];
  fallback: Value | undefined;
}

/** One clause and its else branches; each is tried when those before yielded nothing. */
interface CompiledClause {
  readonly branches: readonly Branch[];
}

interface Branch {
  readonly number: number;
  readonly frameSize: number;
  readonly argSlots: readonly number[];
  readonly run: Step;
}

/** Where a condition stands, for explanations. */
export interface Landmark {
  readonly rule: string;
  readonly literal: Literal;
  /** Other rules that the condition asks. */
  readonly asks: readonly string[];
}

/** A policy, ready to be asked. Evaluation is synchronous; one program answers one question at a time. */
export class Program {
  readonly packagePath: readonly string[];
  readonly machine = new Machine();
  /** The conditions of each branch, by its number, in the order of their evaluation. */
  readonly landmarks: Landmark[][] = [];
  readonly #rules = new Map<string, Rule>();
  readonly #context: Context;

  /** Throws INVALID_ARGUMENT for what no evaluation could make sense of. */
  constructor(module: Module) {
    this.packagePath = module.packagePath;
    this.#context = {
      program: this,
      machine: this.machine,
      body: (literals, scope, bound, last) => compileBody(literals, scope, bound, this.#context, last),
    };
    for (const clause of module.clauses) this.#declare(clause);
    for (const clause of module.clauses) this.#compile(clause);
  }

  readonly isGlobal = (name: string): boolean => name === "input" || name === "data" || this.#rules.has(name);

  get ruleNames(): string[] {
    return [...this.#rules.keys()];
  }

  findRule(name: string): Rule | undefined {
    return this.#rules.get(name);
  }

  /** A function by the name that a call gives it. */
  findFunction(name: string): Rule | undefined {
    const prefix = `data.${this.packagePath.join(".")}.`;
    const rule = this.#rules.get(name.startsWith(prefix) ? name.slice(prefix.length) : name);
    return rule?.kind === "function" ? rule : undefined;
  }

  checkArity(rule: Rule, count: number, line: number): void {
    if (rule.arity === count) return;
    throw syntaxError(line, `function "${rule.name}" takes ${rule.arity} arguments, not ${count}`);
  }

  /** The value of a rule for the current input; undefined when nothing makes it true. */
  valueOf(rule: Rule): Value | undefined {
    const { machine } = this;
    const known = machine.rules[rule.index];
    if (known === EVALUATING) throw recursion(rule.name);
    if (known !== undefined) return known === UNDEFINED ? undefined : (known as Value);
    machine.rules[rule.index] = EVALUATING;
    const { rules } = machine;
    machine.enter();
    try {
      const value = this.#evaluate(rule);
      rules[rule.index] = value ?? (value === null ? null : UNDEFINED);
      return value;
    } finally {
      if (rules[rule.index] === EVALUATING) rules[rule.index] = undefined;
      machine.leave();
    }
  }

  /** The value of a function. */
  call(rule: Rule, args: readonly Value[]): Value | undefined {
    this.machine.enter();
    let result: Value | undefined;
    for (const clause of rule.clauses) {
      const value = this.#runClause(clause, args);
      if (value === undefined) continue;
      if (result !== undefined && !equalValues(result, value)) throw conflict(rule.name);
      result = value;
    }
    this.machine.leave();
    return result;
  }

  #evaluate(rule: Rule): Value | undefined {
    if (rule.kind === "function") return undefined;
    if (rule.kind !== "complete") return this.#collect(rule);
    let result: Value | undefined;
    for (const clause of rule.clauses) {
      const value = this.#runClause(clause, []);
      if (value === undefined) continue;
      if (result !== undefined && !equalValues(result, value)) throw conflict(rule.name);
      result = value;
    }
    return result === undefined ? rule.fallback : result;
  }

  #runClause({ branches }: CompiledClause, args: readonly Value[]): Value | undefined {
    for (const { frameSize, argSlots, run } of branches) {
      const frame: Frame = new Array(frameSize);
      for (let index = 0; index < args.length; index++) frame[argSlots[index] ?? 0] = args[index];
      run(frame);
      if (frame[RESULT] !== undefined) return frame[RESULT];
    }
    return undefined;
  }

  /** A partial rule: all that its clauses yield. */
  #collect(rule: Rule): Value {
    const collection = rule.kind === "set" ? new RegoSet() : new RegoObject();
    for (const { branches } of rule.clauses) {
      for (const { frameSize, run } of branches) {
        const frame: Frame = new Array(frameSize);
        frame[RESULT] = collection;
        run(frame);
      }
    }
    return collection;
  }

  #declare(clause: Clause): void {
    const { name, kind, line } = clause;
    if (name === "input" || name === "data") throw syntaxError(line, `a rule cannot be called "${name}"`);
    const known = this.#rules.get(name);
    if (!known) {
      const arity = clause.args.length;
      const index = this.#rules.size;
      this.#rules.set(name, { index, name, kind, arity, clauses: [], fallback: undefined });
    } else if (known.kind !== kind || known.arity !== clause.args.length) {
      throw syntaxError(line, `rule "${name}" is defined in several kinds`);
    }
  }

  #compile(clause: Clause): void {
    const rule = this.#rules.get(clause.name);
    if (!rule) return;
    if (clause.isDefault) {
      rule.fallback = foldConstant(clause.value);
      if (rule.fallback === undefined) {
        throw syntaxError(clause.line, `default of rule "${rule.name}" is not constant`);
      }
      return;
    }
    const branches = [{ value: clause.value, body: clause.body }, ...clause.otherwise].map((branch) =>
      this.#compileBranch(clause, branch.value, branch.body),
    );
    rule.clauses.push({ branches });
  }

  #compileBranch(clause: Clause, value: Term, body: readonly Literal[]): Branch {
    const layout = new FrameLayout();
    const scope = new Scope(layout);
    const argSlots = clause.args.map(() => layout.allocate());
    const heads = clause.key ? [clause.key, value] : [value];
    const patterns = clause.args.flatMap((arg) => [...namesDeep([], [arg])]);
    for (const name of patterns) if (!this.isGlobal(name) || isParameter(clause, name)) scope.declare(name);
    scope.declareNames(body, heads, this.isGlobal);
    const bound: Bound = new Set();
    const number = this.landmarks.length;
    const landmarks: Landmark[] = [];
    this.landmarks.push(landmarks);
    const last = () => this.#compileHead(clause, heads, scope, bound);
    const conditions = () =>
      compileBody(body, scope, bound, this.#context, last, (literal) => {
        const index = body.indexOf(literal);
        landmarks[index] = { rule: clause.name, literal, asks: this.#asked(literal) };
        return () => this.machine.observer?.reached(number, index);
      });
    const match = (index: number): Step => {
      const [pattern, slot] = [clause.args[index], argSlots[index]];
      if (!pattern || slot === undefined) return conditions();
      return compileMatch(
        pattern,
        (frame) => frame[slot],
        scope,
        bound,
        this.#context,
        () => match(index + 1),
      );
    };
    const run = match(0);
    return { number, frameSize: layout.size, argSlots, run };
  }

  #asked(literal: Literal): string[] {
    return [...namesDeep([literal], [])]
      .filter((name) => this.#rules.has(name))
      .concat(callsOf(literal, this));
  }

  #compileHead({ kind, name }: Clause, heads: readonly Term[], scope: Scope, bound: Bound): Step {
    const { machine } = this;
    const constant = kind === "complete" || kind === "function" ? foldConstant(heads[0] as Term) : undefined;
    if (constant !== undefined) {
      return (frame) => {
        frame[RESULT] = constant;
        return true;
      };
    }
    return compileHeads(heads, scope, bound, this.#context, (values) => (frame) => {
      const [first, second] = values.map((evaluate) => evaluate(frame));
      if (first === undefined) return false;
      const result = frame[RESULT];
      if (kind === "set" && result instanceof RegoSet) {
        machine.chargeMembers(1);
        result.add(first);
      } else if (kind === "object" && result instanceof RegoObject) {
        if (second === undefined) return false;
        const known = result.get(first);
        if (known !== undefined && !equalValues(known, second)) throw conflict(name);
        machine.chargeMembers(1);
        result.set(first, second);
      } else {
        if (result !== undefined && !equalValues(result, first)) throw conflict(name);
        frame[RESULT] = first;
      }
      return false;
    });
  }
}

/** A parameter may have the name of a rule, and then hides it. */
function isParameter({ args }: Clause, name: string): boolean {
  return args.some((arg) => arg.kind === "var" && arg.name === name);
}

function callsOf(literal: Literal, program: Program): string[] {
  const names = literal.text.match(/[A-Za-z_]\w*(?=\s*\()/g) ?? [];
  return names.filter((name) => program.findFunction(name) !== undefined);
}

function recursion(name: string): HakoError {
  return new HakoError("FAILED_PRECONDITION", `Cannot evaluate the policy: rule "${name}" refers to itself`);
}
