// SPDX-License-Identifier: Apache-2.0
#include "section.h"

#include <errno.h>
#include <string.h>

#include "control.h"
#include "wire.h"

#define ALIGN8(n) (((n) + 7u) & ~7u)

int hako_sections_parse(struct hako_sections *sections, const uint8_t *data, uint32_t length)
{
	memset(sections, 0, sizeof(*sections));
	while (length) {
		struct hako_section header;
		uint32_t whole;

		if (length < sizeof(header))
			return -EPROTO;
		memcpy(&header, data, sizeof(header));
		if (header.length > HAKO_SECTION_MAX || header.kind >= HAKO_SECTION_KINDS)
			return -EPROTO;
		whole = (uint32_t)sizeof(header) + ALIGN8(header.length);
		if (whole > length || sections->of[header.kind].data)
			return -EPROTO;
		sections->of[header.kind].data = data + sizeof(header);
		sections->of[header.kind].length = header.length;
		data += whole;
		length -= whole;
	}
	return 0;
}

const void *hako_section_exact(const struct hako_sections *sections, uint32_t kind, uint32_t length)
{
	return sections->of[kind].length == length ? sections->of[kind].data : NULL;
}

void *hako_section_reserve(struct hako_reply *reply, uint32_t kind, uint32_t length)
{
	struct hako_section header = { .kind = kind, .length = length };
	uint8_t *room = hako_reply_reserve(reply, (uint32_t)sizeof(header) + ALIGN8(length));

	if (!room)
		return NULL;
	memcpy(room, &header, sizeof(header));
	return room + sizeof(header);
}
