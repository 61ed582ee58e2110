// SPDX-License-Identifier: Apache-2.0
/* Interrupt controllers, clock, and what else belongs to the whole machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/kvm.h>

#include "../../kernel.h"
#include "../virtio/device.h"
#include "x86.h"

/* Three pages that KVM needs on Intel processors in real mode, below the BIOS where no memory may be. */
#define TSS_ADDRESS	0xfffbd000ul
#define SERIAL_VERSION	1

static struct hako_arch the_arch;

/* There is no PIT: nothing needs it, it costs a kernel thread, and closing the VM takes 14 ms longer with it. */
int hako_arch_create(struct hako_machine *machine)
{
	memset(&the_arch, 0, sizeof(the_arch));
	machine->arch = &the_arch;
	if (ioctl(machine->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0)
		return -errno;
	return hako_result(ioctl(machine->vm, KVM_CREATE_IRQCHIP, 0));
}

int hako_arch_exit(struct hako_vcpu *vcpu)
{
	if (vcpu->run->exit_reason != KVM_EXIT_IO)
		return -ENOSYS;
	hako_port_access(vcpu);
	return 0;
}

static int line_set(struct hako_machine *machine, uint32_t gsi, uint32_t level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	return hako_result(ioctl(machine->vm, KVM_IRQ_LINE, &line));
}

int hako_arch_pulse(struct hako_machine *machine, uint32_t gsi)
{
	int ret = gsi < KVM_IOAPIC_NUM_PINS ? line_set(machine, gsi, 1) : -EINVAL;

	return ret < 0 ? ret : line_set(machine, gsi, 0);
}

/* The guest's watchdogs shall not count the pause. Fails for a guest without kvmclock, which does not matter. */
void hako_arch_resume(struct hako_vcpu *vcpu)
{
	ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}

uint64_t hako_arch_pc(struct hako_vcpu *vcpu)
{
	struct kvm_regs regs;

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

void hako_arch_metrics(struct hako_machine *machine)
{
	hako_metric_add(machine, HAKO_NO_DEVICE, "serial_bytes", machine->arch->serial.written);
	hako_metric_add(machine, HAKO_NO_DEVICE, "serial_dropped", machine->arch->serial.dropped);
}

/* ---- state */

static const struct {
	uint32_t kind, chip;
	const char *name;
} chips[] = {
	{ HAKO_MACHINE_PIC_MASTER, KVM_IRQCHIP_PIC_MASTER, "first PIC" },
	{ HAKO_MACHINE_PIC_SLAVE, KVM_IRQCHIP_PIC_SLAVE, "second PIC" },
	{ HAKO_MACHINE_IOAPIC, KVM_IRQCHIP_IOAPIC, "IOAPIC" },
};

/* HAKO_MACHINE_SERIAL */
struct serial_state {
	uint32_t version;
	uint8_t ier, iir_fifo, lcr, mcr, scr, dll, dlm, loop_data, loop_full, transmitted;
	uint8_t reserved[2];
};

static int serial_put(struct hako_serial *serial, const struct serial_state *state)
{
	if (state->version != SERIAL_VERSION)
		return -EINVAL;
	serial->ier = state->ier & 0x0f;
	serial->iir_fifo = state->iir_fifo & 0xc0;
	serial->lcr = state->lcr;
	serial->mcr = state->mcr & 0x1f;
	serial->scr = state->scr;
	serial->dll = state->dll;
	serial->dlm = state->dlm;
	serial->loop_data = state->loop_data;
	serial->loop_full = state->loop_full;
	serial->transmitted = state->transmitted;
	return 0;
}

static void serial_get(const struct hako_serial *serial, struct serial_state *state)
{
	*state = (struct serial_state){
		.version = SERIAL_VERSION,
		.ier = serial->ier,
		.iir_fifo = serial->iir_fifo,
		.lcr = serial->lcr,
		.mcr = serial->mcr,
		.scr = serial->scr,
		.dll = serial->dll,
		.dlm = serial->dlm,
		.loop_data = serial->loop_data,
		.loop_full = serial->loop_full,
		.transmitted = serial->transmitted,
	};
}

static int chip_put(struct hako_machine *machine, uint32_t chip, const void *data)
{
	struct kvm_irqchip state;

	memcpy(&state, data, sizeof(state));
	return state.chip_id == chip ? hako_result(ioctl(machine->vm, KVM_SET_IRQCHIP, &state)) : -EINVAL;
}

/*
 * With KVM_CLOCK_REALTIME in the flags the guest's time jumps forward by the pause, else it goes on where it stood.
 * Its other flags only tell of the clock that was read.
 */
static int clock_put(struct hako_machine *machine, const void *data)
{
	struct kvm_clock_data clock;

	memcpy(&clock, data, sizeof(clock));
	clock.flags &= KVM_CLOCK_REALTIME;
	return hako_result(ioctl(machine->vm, KVM_SET_CLOCK, &clock));
}

static int bad_section(struct hako_reply *reply, int error, const char *name)
{
	return hako_reply_fail(reply, error, "state of the %s", name);
}

int hako_arch_machine_put(struct hako_machine *machine, const struct hako_sections *sections,
			  struct hako_reply *reply)
{
	int ret;

	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(chips); i++) {
		const void *data = hako_section_exact(sections, chips[i].kind, sizeof(struct kvm_irqchip));

		if (!data && !sections->of[chips[i].kind].data)
			continue;
		ret = data ? chip_put(machine, chips[i].chip, data) : -EINVAL;
		if (ret < 0)
			return bad_section(reply, ret, chips[i].name);
	}
	if (sections->of[HAKO_MACHINE_CLOCK].data) {
		const void *data = hako_section_exact(sections, HAKO_MACHINE_CLOCK, sizeof(struct kvm_clock_data));

		ret = data ? clock_put(machine, data) : -EINVAL;
		if (ret < 0)
			return bad_section(reply, ret, "clock");
	}
	if (sections->of[HAKO_MACHINE_SERIAL].data) {
		const void *data = hako_section_exact(sections, HAKO_MACHINE_SERIAL, sizeof(struct serial_state));

		ret = data ? serial_put(&machine->arch->serial, data) : -EINVAL;
		if (ret < 0)
			return bad_section(reply, ret, "serial port");
	}
	return 0;
}

int hako_arch_machine_get(struct hako_machine *machine, struct hako_reply *reply)
{
	struct kvm_clock_data *clock;

	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(chips); i++) {
		struct kvm_irqchip *state = hako_section_reserve(reply, chips[i].kind, sizeof(*state));

		state->chip_id = chips[i].chip;
		if (ioctl(machine->vm, KVM_GET_IRQCHIP, state) < 0)
			return bad_section(reply, -errno, chips[i].name);
	}
	clock = hako_section_reserve(reply, HAKO_MACHINE_CLOCK, sizeof(*clock));
	if (ioctl(machine->vm, KVM_GET_CLOCK, clock) < 0)
		return bad_section(reply, -errno, "clock");
	serial_get(&machine->arch->serial,
		   hako_section_reserve(reply, HAKO_MACHINE_SERIAL, sizeof(struct serial_state)));
	return 0;
}
