// SPDX-License-Identifier: Apache-2.0
/*
 * The serial port (National Semiconductor PC16550D). Output goes to the console descriptor a byte at a time, so that
 * nothing is lost when anything dies; what the descriptor does not take is dropped and counted, because a console
 * that nobody reads must not hold the guest up. There is no input.
 */
#include <unistd.h>

#include <linux/serial_reg.h>

#include "x86.h"

/* The interrupt line is an edge: it is pulsed when a reason becomes pending, not while one is. */
static void transmitted(struct hako_machine *machine)
{
	struct hako_serial *serial = &machine->arch->serial;

	if (serial->transmitted || !(serial->ier & UART_IER_THRI))
		return;
	serial->transmitted = true;
	hako_arch_pulse(machine, HAKO_SERIAL_GSI);
}

static void byte_write(struct hako_machine *machine, uint8_t value)
{
	struct hako_serial *serial = &machine->arch->serial;

	if (serial->mcr & UART_MCR_LOOP) {
		serial->loop_data = value;
		serial->loop_full = true;
	} else if (machine->console >= 0 && write(machine->console, &value, 1) == 1) {
		serial->written++;
	} else {
		serial->dropped++;
	}
	transmitted(machine);
}

static uint8_t identify(struct hako_serial *serial)
{
	uint8_t reason = UART_IIR_NO_INT;

	if (serial->transmitted)
		reason = UART_IIR_THRI;
	serial->transmitted = false;
	return reason | serial->iir_fifo;
}

/* In loop-back mode the modem's outputs come back as its inputs; else somebody is always connected. */
static uint8_t modem_status(const struct hako_serial *serial)
{
	uint8_t mcr = serial->mcr;

	if (!(mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	return (mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	       (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

uint8_t hako_serial_read(struct hako_machine *machine, uint32_t offset)
{
	struct hako_serial *serial = &machine->arch->serial;
	bool divisor = serial->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_RX:
		if (divisor)
			return serial->dll;
		serial->loop_full = false;
		return serial->loop_data;
	case UART_IER:
		return divisor ? serial->dlm : serial->ier;
	case UART_IIR:
		return identify(serial);
	case UART_LCR:
		return serial->lcr;
	case UART_MCR:
		return serial->mcr;
	case UART_LSR:
		return UART_LSR_TEMT | UART_LSR_THRE | (serial->loop_full ? UART_LSR_DR : 0);
	case UART_MSR:
		return modem_status(serial);
	default:
		return serial->scr;
	}
}

void hako_serial_write(struct hako_machine *machine, uint32_t offset, uint8_t value)
{
	struct hako_serial *serial = &machine->arch->serial;
	bool divisor = serial->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_TX:
		if (divisor)
			serial->dll = value;
		else
			byte_write(machine, value);
		break;
	case UART_IER:
		if (divisor) {
			serial->dlm = value;
			break;
		}
		serial->ier = value & 0x0f;
		if (!(value & UART_IER_THRI))
			serial->transmitted = false;
		transmitted(machine);
		break;
	case UART_FCR:
		serial->iir_fifo = value & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
		if (value & UART_FCR_CLEAR_RCVR)
			serial->loop_full = false;
		break;
	case UART_LCR:
		serial->lcr = value;
		break;
	case UART_MCR:
		serial->mcr = value & 0x1f;
		break;
	case UART_SCR:
		serial->scr = value;
		break;
	default:
		break;
	}
}
