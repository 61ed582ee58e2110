// SPDX-License-Identifier: Apache-2.0
/* I/O ports: the serial port, two ways to restart, ACPI's way to power off, and a timer for benchmarks. */
#include <string.h>

#include <linux/kvm.h>

#include "x86.h"

#define BOOT_TIMER		0x3f0
#define SERIAL			0x3f8
#define SYSTEM_CONTROL_B	0x61
#define I8042_DATA		0x60
#define I8042_COMMAND		0x64
#define I8042_PULSE_RESET	0xfe
#define RESET_CONTROL		0xcf9
#define RESET_CPU		0x04
/* ACPI 6.5, 4.8.3.7: sleep control register */
#define SLEEP_ENABLE		0x20

static void boot_time(struct hako_machine *machine, uint8_t value)
{
	uint32_t at = machine->boot_time_count;

	if (at == HAKO_BOOT_TIMES_MAX)
		return;
	machine->boot_times[at].value = value;
	machine->boot_times[at].ns = hako_now_ns();
	machine->boot_time_count++;
}

static void restart(struct hako_vcpu *vcpu, uint16_t port)
{
	hako_machine_end(vcpu->machine, HAKO_EXIT_RESET, vcpu->index, port, "the guest restarts by port 0x%x", port);
}

/* Returns false when nothing is at the port. With the lock held. */
static bool port_write(struct hako_vcpu *vcpu, uint16_t port, uint8_t value)
{
	struct hako_machine *machine = vcpu->machine;
	const struct hako_machine_create *config = &machine->config;

	if (config->flags & HAKO_CREATE_SERIAL && port >= SERIAL && port < SERIAL + 8)
		hako_serial_write(machine, port - SERIAL, value);
	else if (config->flags & HAKO_CREATE_BOOT_TIMER && port == BOOT_TIMER)
		boot_time(machine, value);
	else if (config->flags & HAKO_CREATE_I8042 && port == I8042_COMMAND && value == I8042_PULSE_RESET)
		restart(vcpu, port);
	else if (port == RESET_CONTROL && value & RESET_CPU)
		restart(vcpu, port);
	else if (config->power_port && port == config->power_port && value & SLEEP_ENABLE)
		hako_machine_end(machine, HAKO_EXIT_POWER_OFF, vcpu->index, value, "the guest powers off");
	else
		return false;
	return true;
}

static bool port_read(struct hako_vcpu *vcpu, uint16_t port, uint8_t *value)
{
	const struct hako_machine_create *config = &vcpu->machine->config;

	if (config->flags & HAKO_CREATE_SERIAL && port >= SERIAL && port < SERIAL + 8) {
		*value = hako_serial_read(vcpu->machine, port - SERIAL);
		return true;
	}
	switch (port) {
	case I8042_DATA:
	case I8042_COMMAND:
		/* No data, ready for a command: kernels wait for that before they pulse the reset line. */
		*value = 0;
		return true;
	case SYSTEM_CONTROL_B:
		/* No parity error, and timer 2 has fired: calibration loops on it end. */
		*value = 0x20;
		return true;
	case RESET_CONTROL:
		*value = 0;
		return true;
	default:
		*value = config->power_port && port == config->power_port ? 0 : 0xff;
		return config->power_port && port == config->power_port;
	}
}

/* Only single bytes mean anything to what is here; wider accesses find nothing. */
void hako_port_access(struct hako_vcpu *vcpu)
{
	struct hako_machine *machine = vcpu->machine;
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool found = run->io.size == 1;

	hako_vcpu_count(vcpu, HAKO_COUNT_IO);
	if (!found) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			memset(data, 0xff, (size_t)run->io.size * run->io.count);
		hako_vcpu_count(vcpu, HAKO_COUNT_UNCLAIMED);
		return;
	}
	hako_loop_lock(&machine->loop, &machine->lock);
	for (uint32_t i = 0; i < run->io.count; i++) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			found = port_write(vcpu, run->io.port, data[i]);
		else
			found = port_read(vcpu, run->io.port, &data[i]);
	}
	hako_loop_unlock(&machine->loop, &machine->lock);
	if (!found)
		hako_vcpu_count(vcpu, HAKO_COUNT_UNCLAIMED);
}
