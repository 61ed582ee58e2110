/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a processor architecture adds; each has a folder that implements this header. All but hako_arch_exit are
 * called with the machine's lock held.
 */
#ifndef HAKO_VMM_ARCH_H
#define HAKO_VMM_ARCH_H

#include "machine.h"
#include "section.h"

/* Interrupt controllers and devices that belong to the machine; sets machine->arch. After KVM_CREATE_VM. */
int hako_arch_create(struct hako_machine *machine);
/* An exit that is not common to all architectures. 0, or -ENOSYS when it is none of these either. */
int hako_arch_exit(struct hako_vcpu *vcpu);
/* Before a vCPU runs again after a pause. */
void hako_arch_resume(struct hako_vcpu *vcpu);
/* One edge on an interrupt line. */
int hako_arch_pulse(struct hako_machine *machine, uint32_t gsi);
/* Where a vCPU is: its program counter. */
uint64_t hako_arch_pc(struct hako_vcpu *vcpu);

/*
 * State in sections of wire.h. Put checks lengths, ignores the message's order, and says what failed in the reply.
 * Get reads all that KVM tells.
 */
int hako_arch_vcpu_put(struct hako_vcpu *vcpu, const struct hako_sections *sections, struct hako_reply *reply);
int hako_arch_vcpu_get(struct hako_vcpu *vcpu, const struct hako_sections *wanted, struct hako_reply *reply);
int hako_arch_machine_put(struct hako_machine *machine, const struct hako_sections *sections,
			  struct hako_reply *reply);
int hako_arch_machine_get(struct hako_machine *machine, struct hako_reply *reply);
void hako_arch_metrics(struct hako_machine *machine);

#endif
