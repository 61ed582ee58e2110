// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "discard.h"

#include <errno.h>
#include <sys/mman.h>

#include "../wire.h"

#define PAGE	4096ull

int hako_discard_host(const struct hako_memory *memory, void *host, uint64_t length)
{
	const struct hako_region *region = hako_memory_find_host(memory, host);
	uint64_t start, end;

	if (!region || (region->flags & (HAKO_MEMORY_READ_ONLY | HAKO_MEMORY_VOLATILE)))
		return -EFAULT;
	start = ((uintptr_t)host + PAGE - 1) & ~(PAGE - 1);
	end = ((uintptr_t)host + length) & ~(PAGE - 1);
	if (start >= end)
		return 0;
	/* A shared file keeps its pages unless there is a hole in it. */
	if (madvise((void *)(uintptr_t)start, end - start,
		    region->flags & HAKO_MEMORY_SHARED ? MADV_REMOVE : MADV_DONTNEED) < 0)
		return -errno;
	return 0;
}

int hako_discard_guest(const struct hako_memory *memory, uint64_t gpa, uint64_t length)
{
	void *host = hako_memory_at(memory, gpa, length, true);

	return host ? hako_discard_host(memory, host, length) : -EFAULT;
}
