/** 16-bit code for guests that need only a few instructions, as the bytes of one instruction after the other. */

/** mov dx, port; mov al, value; out dx, al */
export function out(port: number, value: number): number[] {
  return [0xba, port & 0xff, port >> 8, 0xb0, value, 0xee];
}

const SERIAL = 0x3f8;

export function print(text: string): number[] {
  return [...text].flatMap((character) => out(SERIAL, character.charCodeAt(0)));
}

/** For ever: one more in the word at `address` of the data segment, then `body`. */
export function countForEver(address: number, body: readonly number[] = []): number[] {
  const loop = [0xff, 0x06, address & 0xff, address >> 8, ...body];
  return [...loop, 0xe9, ...word(-(loop.length + 3))];
}

/** mov ax, [address] of the data segment */
export function load(address: number): number[] {
  return [0xa1, ...word(address)];
}

/** mov ax, value; mov ds, ax */
export function dataSegment(value: number): number[] {
  return [0xb8, ...word(value), 0x8e, 0xd8];
}

/** jmp to itself */
export const spin = [0xeb, 0xfe];

/** Protected mode without an interrupt table, and an undefined instruction: the processor shuts down. */
export const tripleFault = [
  ...[0x0f, 0x01, 0x1e, ...word(0x600)], // lidt [0x600]
  ...[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0], // mov eax, cr0; or al, 1; mov cr0, eax
  ...[0x0f, 0x0b], // ud2
];

/** Asks the keyboard controller for a reset. */
export const reset = out(0x64, 0xfe);

function word(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff];
}
