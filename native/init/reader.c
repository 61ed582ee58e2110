// SPDX-License-Identifier: Apache-2.0
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"

size_t hako_reader_left(const struct hako_reader *r)
{
	return (size_t)(r->end - r->at);
}

void hako_take(struct hako_reader *r, void *out, size_t size)
{
	memset(out, 0, size);
	if (r->error)
		return;
	if (hako_reader_left(r) < size) {
		r->error = -EBADMSG;
		return;
	}
	memcpy(out, r->at, size);
	r->at += size;
}

uint32_t hako_take_u32(struct hako_reader *r)
{
	uint32_t value;

	hako_take(r, &value, sizeof(value));
	return value;
}

uint64_t hako_take_u64(struct hako_reader *r)
{
	uint64_t value;

	hako_take(r, &value, sizeof(value));
	return value;
}

const char *hako_take_string(struct hako_reader *r, size_t max)
{
	const uint8_t *start = r->at;
	const uint8_t *nul;

	if (r->error)
		return "";
	nul = hako_reader_left(r) ? memchr(start, 0, hako_reader_left(r)) : NULL;
	if (!nul) {
		r->error = -EBADMSG;
		return "";
	}
	if ((size_t)(nul - start) > max) {
		r->error = -E2BIG;
		return "";
	}
	r->at = nul + 1;
	return (const char *)start;
}

const char *hako_take_absolute(struct hako_reader *r)
{
	const char *path = hako_take_string(r, HAKO_PATH_MAX);

	if (!r->error && path[0] != '/')
		r->error = -EINVAL;
	return path;
}

char **hako_take_strings(struct hako_reader *r, uint32_t *count)
{
	const uint8_t *at = r->at;
	char **strings;
	size_t n = 0;

	for (; at < r->end; at++)
		n += *at == 0;
	if (n > HAKO_ARGS_MAX) {
		r->error = -E2BIG;
		return NULL;
	}
	strings = calloc(n + 2, sizeof(*strings));
	if (!strings) {
		r->error = -ENOMEM;
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		strings[i] = (char *)hako_take_string(r, HAKO_STRING_MAX);
	*count = (uint32_t)n;
	return strings;
}

void hako_reader_check(struct hako_reader *r, bool good)
{
	if (!r->error && !good)
		r->error = -EINVAL;
}
