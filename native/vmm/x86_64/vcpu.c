// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU's registers, out of and into KVM. The order of the table matters: CPUID decides what the rest may hold; the
 * LAPIC comes before the MSRs, or the timer's deadline is lost; within the MSRs the time stamp counter comes before
 * the deadline that is measured by it; the MP state is always there, or a waiting processor never starts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/kvm.h>

#include "../../kernel.h"
#include "x86.h"

#define MSR_TSC			0x10
#define MSR_TSC_DEADLINE	0x6e0
#define MSRS_MAX		512
#define CPUID_MAX		256

/* MSRs that make up a processor's state but are missing in some kernels' KVM_GET_MSR_INDEX_LIST. */
static const uint32_t more_msrs[] = {
	MSR_TSC_DEADLINE,
	0x2ff,						/* MTRR default type */
	0x250, 0x258, 0x259,				/* fixed-range MTRRs */
	0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
	0x277,						/* PAT */
};

/* A structure that KVM takes and gives as it stands. */
static const struct {
	uint32_t kind, size;
	unsigned long set, get;
	const char *name;
} plain[] = {
	{ HAKO_VCPU_MP_STATE, sizeof(struct kvm_mp_state), KVM_SET_MP_STATE, KVM_GET_MP_STATE, "MP state" },
	{ HAKO_VCPU_REGS, sizeof(struct kvm_regs), KVM_SET_REGS, KVM_GET_REGS, "registers" },
	{ HAKO_VCPU_SREGS, sizeof(struct kvm_sregs), KVM_SET_SREGS, KVM_GET_SREGS, "special registers" },
	{ HAKO_VCPU_FPU, sizeof(struct kvm_fpu), KVM_SET_FPU, KVM_GET_FPU, "FPU" },
	{ HAKO_VCPU_XSAVE, sizeof(struct kvm_xsave), KVM_SET_XSAVE, KVM_GET_XSAVE, "XSAVE area" },
	{ HAKO_VCPU_XCRS, sizeof(struct kvm_xcrs), KVM_SET_XCRS, KVM_GET_XCRS, "XCRs" },
	{ HAKO_VCPU_DEBUGREGS, sizeof(struct kvm_debugregs), KVM_SET_DEBUGREGS, KVM_GET_DEBUGREGS, "debug registers" },
	{ HAKO_VCPU_LAPIC, sizeof(struct kvm_lapic_state), KVM_SET_LAPIC, KVM_GET_LAPIC, "LAPIC" },
	{ HAKO_VCPU_MSRS, 0, 0, 0, "MSRs" },
	{ HAKO_VCPU_EVENTS, sizeof(struct kvm_vcpu_events), KVM_SET_VCPU_EVENTS, KVM_GET_VCPU_EVENTS, "events" },
};

static int bad_state(const struct hako_vcpu *vcpu, struct hako_reply *reply, int error, const char *name)
{
	return hako_reply_fail(reply, error, "%s of vCPU %u", name, vcpu->index);
}

/* ---- put */

static int cpuid_put(struct hako_vcpu *vcpu, const void *data, uint32_t length)
{
	uint32_t count = length / sizeof(struct kvm_cpuid_entry2);
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_MAX];
	} cpuid;

	if (!count || count > CPUID_MAX || length % sizeof(struct kvm_cpuid_entry2))
		return -EINVAL;
	cpuid.head.nent = count;
	memcpy(cpuid.entries, data, length);
	return hako_result(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid));
}

static int tsc_khz_put(struct hako_vcpu *vcpu, const void *data, uint32_t length)
{
	uint32_t khz;

	if (length != 8)
		return -EINVAL;
	memcpy(&khz, data, sizeof(khz));
	return hako_result(ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)khz));
}

static struct {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSRS_MAX];
} msr_table;

/* Sets what is in msr_table. KVM stops at the first MSR that it does not take. */
static int msr_table_put(struct hako_vcpu *vcpu, uint32_t count, uint32_t *refused)
{
	int done;

	if (!count)
		return 0;
	msr_table.head.nmsrs = count;
	done = ioctl(vcpu->fd, KVM_SET_MSRS, &msr_table);
	if (done < 0)
		return -errno;
	if ((uint32_t)done == count)
		return 0;
	*refused = msr_table.entries[done].index;
	return -EINVAL;
}

static int msrs_put(struct hako_vcpu *vcpu, const void *data, uint32_t length, struct hako_reply *reply)
{
	const struct kvm_msr_entry *given = data;
	const struct kvm_msr_entry *deadline = NULL;
	uint32_t count = length / sizeof(*given), first = 0, refused = 0;
	int ret;

	if (count > MSRS_MAX || length % sizeof(*given))
		return bad_state(vcpu, reply, -EINVAL, "MSRs");
	for (uint32_t i = 0; i < count; i++) {
		if (given[i].index == MSR_TSC_DEADLINE)
			deadline = &given[i];
		else
			msr_table.entries[first++] = given[i];
	}
	ret = msr_table_put(vcpu, first, &refused);
	if (!ret && deadline) {
		msr_table.entries[0] = *deadline;
		ret = msr_table_put(vcpu, 1, &refused);
	}
	return ret ? hako_reply_fail(reply, ret, "MSR 0x%x of vCPU %u", refused, vcpu->index) : 0;
}

/* The area's size with KVM_CAP_XSAVE2, else that of struct kvm_xsave. */
static uint32_t xsave_size(const struct hako_vcpu *vcpu)
{
	int size = ioctl(vcpu->machine->vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	return size > (int)sizeof(struct kvm_xsave) ? (uint32_t)size : (uint32_t)sizeof(struct kvm_xsave);
}

/* KVM reads as much of the XSAVE area as the vCPU has, whatever the length. */
static bool length_fits(const struct hako_vcpu *vcpu, size_t i, uint32_t length)
{
	if (plain[i].kind == HAKO_VCPU_XSAVE)
		return length >= xsave_size(vcpu);
	return length == plain[i].size || (plain[i].kind == HAKO_VCPU_MP_STATE && length == 8);
}

int hako_arch_vcpu_put(struct hako_vcpu *vcpu, const struct hako_sections *sections, struct hako_reply *reply)
{
	int ret = 0;

	if (sections->of[HAKO_VCPU_CPUID].data)
		ret = cpuid_put(vcpu, sections->of[HAKO_VCPU_CPUID].data, sections->of[HAKO_VCPU_CPUID].length);
	if (ret)
		return bad_state(vcpu, reply, ret, "CPUID");
	if (sections->of[HAKO_VCPU_TSC_KHZ].data)
		ret = tsc_khz_put(vcpu, sections->of[HAKO_VCPU_TSC_KHZ].data, sections->of[HAKO_VCPU_TSC_KHZ].length);
	if (ret < 0)
		return bad_state(vcpu, reply, ret, "TSC frequency");
	for (size_t i = 0; i < HAKO_ARRAY_LENGTH(plain); i++) {
		const void *data = sections->of[plain[i].kind].data;
		uint32_t length = sections->of[plain[i].kind].length;

		if (!data)
			continue;
		if (plain[i].kind == HAKO_VCPU_MSRS) {
			ret = msrs_put(vcpu, data, length, reply);
			if (ret)
				return ret;
			continue;
		}
		if (!length_fits(vcpu, i, length))
			return bad_state(vcpu, reply, -EINVAL, plain[i].name);
		if (ioctl(vcpu->fd, plain[i].set, data) < 0)
			return bad_state(vcpu, reply, -errno, plain[i].name);
	}
	return 0;
}

/* ---- get */

static bool msr_listed(uint32_t count, uint32_t index)
{
	for (uint32_t i = 0; i < count; i++) {
		if (msr_table.entries[i].index == index)
			return true;
	}
	return false;
}

/* Fills msr_table with the indices to read, returns how many. */
static int msr_indices(struct hako_vcpu *vcpu, const struct hako_sections *wanted)
{
	static struct {
		struct kvm_msr_list head;
		uint32_t indices[MSRS_MAX];
	} list;
	const uint32_t *given = wanted->of[HAKO_VCPU_MSR_LIST].data;
	uint32_t count = wanted->of[HAKO_VCPU_MSR_LIST].length / sizeof(*given);

	if (!given) {
		list.head.nmsrs = MSRS_MAX;
		if (ioctl(vcpu->machine->kvm, KVM_GET_MSR_INDEX_LIST, &list) < 0)
			return -errno;
		given = list.indices;
		count = list.head.nmsrs;
	}
	if (count > MSRS_MAX - HAKO_ARRAY_LENGTH(more_msrs))
		return -E2BIG;
	for (uint32_t i = 0; i < count; i++)
		msr_table.entries[i] = (struct kvm_msr_entry){ .index = given[i] };
	for (size_t i = 0; given == list.indices && i < HAKO_ARRAY_LENGTH(more_msrs); i++) {
		if (!msr_listed(count, more_msrs[i]))
			msr_table.entries[count++] = (struct kvm_msr_entry){ .index = more_msrs[i] };
	}
	return (int)count;
}

/*
 * KVM stops at the first MSR that it cannot read. That one is taken out, and the rest read again from there on, so
 * what stays are all that can be read.
 */
static int msrs_read(struct hako_vcpu *vcpu, uint32_t count)
{
	static struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[MSRS_MAX];
	} part;
	uint32_t read = 0;

	while (read < count) {
		uint32_t left = count - read;
		int got;

		part.head.nmsrs = left;
		memcpy(part.entries, msr_table.entries + read, left * sizeof(part.entries[0]));
		got = ioctl(vcpu->fd, KVM_GET_MSRS, &part);
		if (got < 0)
			return -errno;
		memcpy(msr_table.entries + read, part.entries, (size_t)got * sizeof(part.entries[0]));
		read += (uint32_t)got;
		if (read == count)
			break;
		memmove(msr_table.entries + read, msr_table.entries + read + 1,
			(count - read - 1) * sizeof(msr_table.entries[0]));
		count--;
	}
	return (int)count;
}

static struct kvm_msr_entry *msr_find(uint32_t count, uint32_t index)
{
	for (uint32_t i = 0; i < count; i++) {
		if (msr_table.entries[i].index == index)
			return &msr_table.entries[i];
	}
	return NULL;
}

/*
 * A deadline of 0 may mean that the timer has fired and its interrupt is on the way; restored as 0 the guest might
 * never get one again. One that has just passed costs at most an interrupt too many.
 */
static void deadline_fix(uint32_t count)
{
	struct kvm_msr_entry *deadline = msr_find(count, MSR_TSC_DEADLINE);
	const struct kvm_msr_entry *tsc = msr_find(count, MSR_TSC);

	if (deadline && tsc && !deadline->data)
		deadline->data = tsc->data;
}

static int msrs_get(struct hako_vcpu *vcpu, const struct hako_sections *wanted, struct hako_reply *reply)
{
	int count = msr_indices(vcpu, wanted);
	uint32_t length;
	void *room;

	if (count >= 0)
		count = msrs_read(vcpu, (uint32_t)count);
	if (count < 0)
		return bad_state(vcpu, reply, count, "MSRs");
	deadline_fix((uint32_t)count);
	length = (uint32_t)count * (uint32_t)sizeof(struct kvm_msr_entry);
	room = hako_section_reserve(reply, HAKO_VCPU_MSRS, length);
	memcpy(room, msr_table.entries, length);
	return 0;
}

static int cpuid_get(struct hako_vcpu *vcpu, struct hako_reply *reply)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_MAX];
	} cpuid;
	uint32_t length;

	cpuid.head.nent = CPUID_MAX;
	if (ioctl(vcpu->fd, KVM_GET_CPUID2, &cpuid) < 0)
		return bad_state(vcpu, reply, -errno, "CPUID");
	length = cpuid.head.nent * (uint32_t)sizeof(cpuid.entries[0]);
	memcpy(hako_section_reserve(reply, HAKO_VCPU_CPUID, length), cpuid.entries, length);
	return 0;
}

static int tsc_khz_get(struct hako_vcpu *vcpu, struct hako_reply *reply)
{
	int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	uint32_t *room;

	if (khz < 0)
		return bad_state(vcpu, reply, -errno, "TSC frequency");
	room = hako_section_reserve(reply, HAKO_VCPU_TSC_KHZ, 8);
	room[0] = (uint32_t)khz;
	return 0;
}

static int plain_get(struct hako_vcpu *vcpu, size_t i, struct hako_reply *reply)
{
	uint32_t size = plain[i].size;
	unsigned long get = plain[i].get;
	void *room;

	if (plain[i].kind == HAKO_VCPU_XSAVE && xsave_size(vcpu) > size) {
		size = xsave_size(vcpu);
		get = KVM_GET_XSAVE2;
	}
	if (plain[i].kind == HAKO_VCPU_MP_STATE)
		size = 8;
	room = hako_section_reserve(reply, plain[i].kind, size);
	if (!room)
		return bad_state(vcpu, reply, -EMSGSIZE, plain[i].name);
	return ioctl(vcpu->fd, get, room) < 0 ? bad_state(vcpu, reply, -errno, plain[i].name) : 0;
}

int hako_arch_vcpu_get(struct hako_vcpu *vcpu, const struct hako_sections *wanted, struct hako_reply *reply)
{
	int ret = cpuid_get(vcpu, reply);

	if (!ret)
		ret = tsc_khz_get(vcpu, reply);
	for (size_t i = 0; !ret && i < HAKO_ARRAY_LENGTH(plain); i++) {
		/* XSAVE holds the FPU's registers too. */
		if (plain[i].kind == HAKO_VCPU_FPU)
			continue;
		ret = plain[i].kind == HAKO_VCPU_MSRS ? msrs_get(vcpu, wanted, reply) : plain_get(vcpu, i, reply);
	}
	return ret;
}
