/** What is soldered on: ports and interrupt lines of the x86-64 machine. */

/** COM1. */
export const SERIAL = { port: 0x3f8, gsi: 4 } as const;
/** ACPI's generic event device. */
export const EVENT_GSI = 5;
/** Lines of the IOAPIC for virtio devices. */
export const DEVICE_GSIS = { first: 6, last: 23 } as const;
/** ACPI's sleep control register. */
export const POWER_PORT = 0x600;
/** The keyboard controller's reset line. */
export const RESET = { port: 0x64, value: 0xfe } as const;
/** SLP_TYP that means off, by our own choice. */
export const SLEEP_TYPE = 5;
