/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a launch request front to back. A read past the end, of a bad string or over a limit sets `error`, gives
 * zero, "" or NULL, and makes all further reads do the same; so a parser asks once, at its end.
 */
#ifndef HAKO_INIT_READER_H
#define HAKO_INIT_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hako_reader {
	const uint8_t *at, *end;
	int error;		/* 0, -EBADMSG, -E2BIG, -EINVAL or -ENOMEM */
};

size_t hako_reader_left(const struct hako_reader *r);
void hako_take(struct hako_reader *r, void *out, size_t size);
uint32_t hako_take_u32(struct hako_reader *r);
uint64_t hako_take_u64(struct hako_reader *r);

/* A string of at most max bytes; it stays where it is. */
const char *hako_take_string(struct hako_reader *r, size_t max);

/* An absolute path of at most HAKO_PATH_MAX bytes. */
const char *hako_take_absolute(struct hako_reader *r);

/*
 * Every remaining string, at most HAKO_ARGS_MAX of HAKO_STRING_MAX bytes: an array to be freed that ends with NULL
 * and has room for one entry more.
 */
char **hako_take_strings(struct hako_reader *r, uint32_t *count);

/* Sets -EINVAL unless a value is good. */
void hako_reader_check(struct hako_reader *r, bool good);

#endif
