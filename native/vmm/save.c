// SPDX-License-Identifier: Apache-2.0
/*
 * Writing guest memory to a file, pages of zeros left out.
 *
 * What need not even be looked at is passed over: pages that this process never touched and that have no data in
 * the file behind them. For a shared file its own holes tell; else /proc/PID/pagemap tells what was touched
 * (present or swapped out; Documentation/admin-guide/mm/pagemap.rst of Linux).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../kernel.h"
#include "memory.h"
#include "wire.h"

#define PAGE		4096ull
#define BATCH		512		/* pages of one look into the page map */
#define PRESENT		(1ull << 63)
#define SWAPPED		(1ull << 62)

struct save {
	const struct hako_region *region;
	int file, pagemap;
	uint64_t at;		/* of the region in the file that is written */
	uint64_t *written;
	/* The extent of data in the file behind the region that was looked up last, as offsets in the region. */
	uint64_t data_start, data_end;
};

static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;
	uint64_t any = 0;

	for (size_t i = 0; i < PAGE / sizeof(*words); i += 8) {
		for (size_t j = 0; j < 8; j++)
			any |= words[i + j];
		if (any)
			return false;
	}
	return true;
}

static int run_write(struct save *save, uint64_t start, uint64_t end)
{
	while (start < end) {
		const struct iovec iov = { .iov_base = save->region->host + start, .iov_len = end - start };
		ssize_t length = syscall(SYS_pwritev2, save->file, &iov, 1, save->at + start, 0l, 0);

		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			return length ? -errno : -EIO;
		start += (uint64_t)length;
		*save->written += (uint64_t)length;
	}
	return 0;
}

/* Whether the file behind the region has data at an offset of it. */
static int file_has_data(struct save *save, uint64_t offset)
{
	const struct hako_region *region = save->region;
	off_t data, hole;

	if (offset >= save->data_start && offset < save->data_end)
		return 1;
	if (offset < save->data_start)
		return 0;
	data = lseek(region->file, (off_t)(region->offset + offset), SEEK_DATA);
	if (data < 0) {
		/* No data from here to the end; or a file that cannot tell. */
		save->data_start = errno == ENXIO ? UINT64_MAX : offset;
		save->data_end = UINT64_MAX;
		return save->data_start <= offset;
	}
	hole = lseek(region->file, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	save->data_start = ((uint64_t)data - region->offset) & ~(PAGE - 1);
	save->data_end = ((uint64_t)hole - region->offset + PAGE - 1) & ~(PAGE - 1);
	return offset >= save->data_start;
}

static int must_look(struct save *save, uint64_t offset, bool touched)
{
	const struct hako_region *region = save->region;

	if (region->file < 0)
		return touched;
	if (region->flags & HAKO_MEMORY_SHARED || !touched)
		return file_has_data(save, offset);
	return 1;
}

/* Which of the pages from `offset` on were touched; without a page map all may have been. */
static int touched_read(const struct save *save, uint64_t offset, uint64_t *entries, uint64_t pages)
{
	uint64_t first = ((uintptr_t)save->region->host + offset) / PAGE;
	const struct iovec iov = { .iov_base = entries, .iov_len = pages * sizeof(*entries) };

	if (save->pagemap < 0) {
		memset(entries, 0xff, iov.iov_len);
		return 0;
	}
	return preadv(save->pagemap, &iov, 1, (off_t)(first * sizeof(*entries))) == (ssize_t)iov.iov_len ? 0 : -EIO;
}

static int batch_save(struct save *save, uint64_t offset, uint64_t pages)
{
	uint64_t entries[BATCH], run = offset;
	int ret = touched_read(save, offset, entries, pages);

	for (uint64_t i = 0; !ret && i < pages; i++) {
		uint64_t at = offset + i * PAGE;
		int look = must_look(save, at, entries[i] & (PRESENT | SWAPPED));

		if (look < 0)
			return look;
		if (look && !is_zero(save->region->host + at))
			continue;
		ret = run_write(save, run, at);
		run = at + PAGE;
	}
	return ret ? ret : run_write(save, run, offset + pages * PAGE);
}

int hako_memory_save(const struct hako_region *region, int file, uint64_t at, int pagemap, uint64_t *written)
{
	struct save save = { .region = region, .file = file, .pagemap = pagemap, .at = at, .written = written };

	for (uint64_t offset = 0; offset < region->size;) {
		uint64_t pages = (region->size - offset) / PAGE;
		int ret;

		if (pages > BATCH)
			pages = BATCH;
		ret = batch_save(&save, offset, pages);
		if (ret)
			return ret;
		offset += pages * PAGE;
	}
	return 0;
}
