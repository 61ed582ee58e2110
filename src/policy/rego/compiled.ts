import type { Value } from "./value.ts";

/** The values of a clause's variables while it is evaluated; slot 0 is its result. */
export type Frame = (Value | undefined)[];

/** A term that has one value, or none, in a frame. */
export type Evaluate = (frame: Frame) => Value | undefined;

/**
 * A condition and all that follow it: tries every way to satisfy them, calling what comes last for each. Returns true
 * when no further way is wanted.
 */
export type Step = (frame: Frame) => boolean;

/** Variables that have values at a point of a body; grows while the body is compiled. */
export type Bound = Set<number>;
