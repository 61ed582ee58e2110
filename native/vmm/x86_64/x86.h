/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. */
#ifndef HAKO_VMM_X86_H
#define HAKO_VMM_X86_H

#include <stdbool.h>
#include <stdint.h>

#include "../arch.h"

/* A 16550A without input: what the kernel's 8250 driver wants to see, and its output. */
struct hako_serial {
	uint8_t ier, iir_fifo, lcr, mcr, scr, dll, dlm;
	uint8_t loop_data;		/* the byte that loop-back mode brought back */
	bool loop_full;
	bool transmitted;		/* "transmitter empty" is pending as an interrupt */
	uint64_t written, dropped;	/* bytes */
};

struct hako_arch {
	struct hako_serial serial;
};

#define HAKO_SERIAL_GSI 4

/* One byte at offset 0 to 7; with the machine's lock held. */
uint8_t hako_serial_read(struct hako_machine *machine, uint32_t offset);
void hako_serial_write(struct hako_machine *machine, uint32_t offset, uint8_t value);

/* An I/O port exit. */
void hako_port_access(struct hako_vcpu *vcpu);

#endif
