/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of KVM state in messages (struct hako_section of wire.h). */
#ifndef HAKO_VMM_SECTION_H
#define HAKO_VMM_SECTION_H

#include <stdint.h>

#define HAKO_SECTION_KINDS	64

/* What a message holds, by kind; data is NULL for what it does not. */
struct hako_sections {
	struct {
		const void *data;
		uint32_t length;
	} of[HAKO_SECTION_KINDS];
};

/* -EPROTO for a section that is cut off, has a kind that cannot be, or comes twice. */
int hako_sections_parse(struct hako_sections *sections, const uint8_t *data, uint32_t length);
/* NULL unless the section is there with exactly `length` bytes. */
const void *hako_section_exact(const struct hako_sections *sections, uint32_t kind, uint32_t length);

struct hako_reply;
/* Room for a section of `length` bytes in a reply, zeroed; NULL when the reply is full. */
void *hako_section_reserve(struct hako_reply *reply, uint32_t kind, uint32_t length);

#endif
