/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: where guest physical addresses lie in this process. Regions never overlap; a region of a device
 * (pmem, mem) may come and go while the guest runs, under the machine's lock.
 */
#ifndef HAKO_VMM_MEMORY_H
#define HAKO_VMM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#define HAKO_REGIONS_MAX	96

struct hako_region {
	uint64_t gpa, size;
	uint8_t *host;
	uint32_t slot;		/* KVM memory slot */
	uint32_t flags;		/* HAKO_MEMORY_* of wire.h */
};

struct hako_memory {
	struct hako_region regions[HAKO_REGIONS_MAX];	/* sorted by gpa */
	uint32_t count;
	int vm_fd;		/* -1: no KVM (fuzzing, tests) */
};

/*
 * Maps a region and gives it to KVM. `fd` -1: anonymous. Returns the region, or NULL with -errno in *error:
 * -EEXIST when address or slot is taken, -EINVAL for sizes that are no whole pages or wrap.
 */
struct hako_region *hako_memory_add(struct hako_memory *memory, const struct hako_region *wanted, int fd,
				    uint64_t offset, int *error);
int hako_memory_remove(struct hako_memory *memory, uint32_t slot);

/*
 * The host address of [gpa, gpa + length), or NULL unless it lies wholly in one region (and, when `write` is set,
 * in a writable one). A length of 0 gives NULL.
 */
void *hako_memory_at(const struct hako_memory *memory, uint64_t gpa, uint64_t length, bool write);

#endif
