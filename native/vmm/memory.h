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
	const uint64_t *blocks;	/* which blocks of 1 << block_shift bytes are there; NULL: all. Whoever sets it owns it */
	uint32_t block_shift;
	uint32_t slot;		/* KVM memory slot */
	uint32_t flags;		/* HAKO_MEMORY_* of wire.h */
	int file;		/* own descriptor of the file behind it, -1: anonymous */
	uint64_t offset;	/* of the region in the file */
};

struct hako_memory {
	struct hako_region regions[HAKO_REGIONS_MAX];	/* sorted by gpa */
	uint32_t count;
	int vm_fd;		/* -1: no KVM (fuzzing, tests) */
	uint64_t window_gpa, window_size;	/* the devices' registers: no memory there */
};

/*
 * Maps a region and gives it to KVM. `fd` -1: anonymous; it stays the caller's. Returns the region, valid until
 * the next add or remove, or NULL with -errno in *error: -EEXIST when address or slot is taken, -EINVAL for
 * sizes that are no whole pages or wrap, -ENOSPC when there are HAKO_REGIONS_MAX.
 */
struct hako_region *hako_memory_add(struct hako_memory *memory, const struct hako_region *wanted, int fd,
				    uint64_t offset, int *error);
int hako_memory_remove(struct hako_memory *memory, uint32_t slot);

/* Whether all of a range inside of the region is there: hako_memory_at gives nothing else away. */
static inline bool hako_region_has(const struct hako_region *region, uint64_t offset, uint64_t length)
{
	if (!region->blocks)
		return true;
	for (uint64_t i = offset >> region->block_shift; i <= (offset + length - 1) >> region->block_shift; i++) {
		if (!(region->blocks[i / 64] >> (i % 64) & 1))
			return false;
	}
	return true;
}

/*
 * The host address of [gpa, gpa + length), or NULL unless it lies wholly in one region (and, when `write` is set,
 * in a writable one). A length of 0 gives NULL.
 */
void *hako_memory_at(const struct hako_memory *memory, uint64_t gpa, uint64_t length, bool write);

/* The region that a host address lies in, or NULL. Takes no lock, so that a signal handler may ask. */
const struct hako_region *hako_memory_find_host(const struct hako_memory *memory, const void *host);
/* A region that can no longer be read to its end because its file became shorter, or NULL. */
const struct hako_region *hako_memory_find_broken(const struct hako_memory *memory);
const struct hako_region *hako_memory_find_slot(const struct hako_memory *memory, uint32_t slot);

/*
 * Writes a region's pages that are not zero to `file` (empty, of the full size) from `at` on. `pagemap`:
 * /proc/PID/pagemap of this process, by which pages that were never touched are passed over unread; -1: all are
 * read. Adds the bytes written to *written. 0 or -errno; -EFAULT when the file behind the region became shorter.
 */
int hako_memory_save(const struct hako_region *region, int file, uint64_t at, int pagemap, uint64_t *written);

#endif
