// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/kvm.h>

#include "../kernel.h"
#include "wire.h"

#define PAGE		4096ull
#define HUGE		(2ull << 20)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static int region_check(const struct hako_memory *memory, const struct hako_region *wanted, uint64_t offset)
{
	if (!wanted->size || (wanted->gpa | wanted->size | offset) % PAGE || wanted->gpa + wanted->size < wanted->gpa ||
	    offset + wanted->size < offset || offset + wanted->size > INT64_MAX || wanted->slot >= HAKO_REGIONS_MAX)
		return -EINVAL;
	if (memory->count == HAKO_REGIONS_MAX)
		return -ENOSPC;
	if (overlap(wanted->gpa, wanted->size, memory->window_gpa, memory->window_size))
		return -EEXIST;
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct hako_region *other = &memory->regions[i];

		if (other->slot == wanted->slot || overlap(wanted->gpa, wanted->size, other->gpa, other->size))
			return -EEXIST;
	}
	return 0;
}

/* Address space in which host and guest addresses are equal below 2 MiB, or huge pages could never fit. */
static uint8_t *range_reserve(const struct hako_region *wanted)
{
	uint64_t slack = wanted->size >= HUGE ? HUGE : 0, skip;
	uint8_t *range = mmap(NULL, wanted->size + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (range == MAP_FAILED)
		return NULL;
	if (!slack)
		return range;
	skip = (wanted->gpa - (uintptr_t)range) % HUGE;
	if (skip)
		munmap(range, skip);
	munmap(range + skip + wanted->size, slack - skip);
	return range + skip;
}

static uint8_t *region_map(const struct hako_region *wanted, int fd, uint64_t offset)
{
	int protection = wanted->flags & HAKO_MEMORY_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
	int flags = MAP_FIXED | MAP_NORESERVE | (wanted->flags & HAKO_MEMORY_SHARED ? MAP_SHARED : MAP_PRIVATE);
	uint8_t *range = range_reserve(wanted);
	int error;

	if (!range)
		return NULL;
	if (fd < 0)
		flags |= MAP_ANONYMOUS;
	if (mmap(range, wanted->size, protection, flags, fd, (off_t)offset) != MAP_FAILED) {
		if (wanted->flags & HAKO_MEMORY_HUGE)
			madvise(range, wanted->size, MADV_HUGEPAGE);
		return range;
	}
	error = errno;
	munmap(range, wanted->size);
	errno = error;
	return NULL;
}

/* A size of 0 removes the slot. */
static int slot_set(const struct hako_memory *memory, const struct hako_region *region, uint64_t size)
{
	struct kvm_userspace_memory_region slot = {
		.slot = region->slot,
		.flags = region->flags & HAKO_MEMORY_READ_ONLY ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = region->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)region->host,
	};

	return memory->vm_fd < 0 ? 0 : hako_result(ioctl(memory->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot));
}

static struct hako_region *region_insert(struct hako_memory *memory, const struct hako_region *region)
{
	uint32_t at = 0;

	while (at < memory->count && memory->regions[at].gpa < region->gpa)
		at++;
	memmove(&memory->regions[at + 1], &memory->regions[at], (memory->count - at) * sizeof(*region));
	memory->regions[at] = *region;
	memory->count++;
	return &memory->regions[at];
}

struct hako_region *hako_memory_add(struct hako_memory *memory, const struct hako_region *wanted, int fd,
				    uint64_t offset, int *error)
{
	struct hako_region region = *wanted;

	region.file = -1;
	region.offset = offset;
	*error = region_check(memory, wanted, offset);
	if (*error)
		return NULL;
	region.host = region_map(wanted, fd, offset);
	if (!region.host) {
		*error = -errno;
		return NULL;
	}
	if (fd >= 0 && !(wanted->flags & HAKO_MEMORY_VOLATILE)) {
		region.file = fcntl(fd, F_DUPFD_CLOEXEC, HAKO_CONTROL_FD);
		if (region.file < 0)
			*error = -errno;
	}
	if (!*error)
		*error = slot_set(memory, &region, region.size);
	if (*error) {
		munmap(region.host, region.size);
		hako_close(&region.file);
		return NULL;
	}
	return region_insert(memory, &region);
}

int hako_memory_remove(struct hako_memory *memory, uint32_t slot)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		struct hako_region *region = &memory->regions[i];
		int ret;

		if (region->slot != slot)
			continue;
		ret = slot_set(memory, region, 0);
		if (ret)
			return ret;
		munmap(region->host, region->size);
		hako_close(&region->file);
		memmove(region, region + 1, (--memory->count - i) * sizeof(*region));
		return 0;
	}
	return -ENOENT;
}

void *hako_memory_at(const struct hako_memory *memory, uint64_t gpa, uint64_t length, bool write)
{
	uint32_t low = 0, high = memory->count;
	const struct hako_region *region;

	/* The last region that begins at or below the address is the only one that can hold it. */
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (memory->regions[middle].gpa <= gpa)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || !length)
		return NULL;
	region = &memory->regions[low - 1];
	if (gpa - region->gpa >= region->size || length > region->size - (gpa - region->gpa))
		return NULL;
	if (write && region->flags & HAKO_MEMORY_READ_ONLY)
		return NULL;
	if (!hako_region_has(region, gpa - region->gpa, length))
		return NULL;
	return region->host + (gpa - region->gpa);
}

const struct hako_region *hako_memory_find_host(const struct hako_memory *memory, const void *host)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct hako_region *region = &memory->regions[i];

		if ((uintptr_t)host - (uintptr_t)region->host < region->size)
			return region;
	}
	return NULL;
}

const struct hako_region *hako_memory_find_broken(const struct hako_memory *memory)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct hako_region *region = &memory->regions[i];

		if (madvise(region->host + region->size - PAGE, PAGE, MADV_POPULATE_READ) < 0 && errno == EFAULT)
			return region;
	}
	return NULL;
}

const struct hako_region *hako_memory_find_slot(const struct hako_memory *memory, uint32_t slot)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		if (memory->regions[i].slot == slot)
			return &memory->regions[i];
	}
	return NULL;
}
