/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs for device-fuzz.c that make a device do its work, to begin from: every request of its kind once, answered.
 * Included there, where the operations are known.
 */
static uint8_t seed[1024];
static size_t seed_length;

static void put(uint64_t value, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes && seed_length < sizeof(seed); i++)
		seed[seed_length++] = (uint8_t)(value >> (8 * i));
}

static void put_bytes(const void *bytes, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		put(((const uint8_t *)bytes)[i], 1);
}

/* Low memory from 0x2000 on, 64 bytes for each head to read and 256 to write. */
static void put_chain(uint32_t queue, uint32_t head, const void *bytes, uint32_t length, uint32_t write_length)
{
	put(CHAIN, 1);
	put(queue, 1);
	put(head, 1);
	put(0x2000 + head * 64, 2);
	put(7, 1);
	put(0x2800 + head * 256, 2);
	put(7, 1);
	put(2, 1);
	put(length, 1);
	put(write_length, 2);
	put_bytes(bytes, length);
	put(TURN, 1);
}

static void put_host(uint32_t index, uint32_t action, const void *bytes, uint32_t length)
{
	put(HOST, 1);
	put(index, 1);
	put(action, 1);
	if (action == 7) {
		put(length, 1);
		put_bytes(bytes, length);
	}
	put(TURN, 1);
}

static void seed_block(void)
{
	static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 99 };

	for (uint32_t i = 0; i < 7; i++) {
		/* type, reserved, sector; then a sector's range, or data that is too short */
		const uint64_t request[4] = { types[i], 1, 2 | 1ull << 32, 0 };

		put_chain(i % 2, i * 2, request, types[i] == 11 || types[i] == 13 ? 32 : 16, types[i] == 0 ? 513 : 21);
	}
}

static void seed_net(void)
{
	static const uint8_t packet[100] = { 0 }, control[4] = { 4, 0, 2, 0 };

	put_chain(0, 0, NULL, 0, 200);
	put_chain(0, 2, NULL, 0, 60);
	put_host(0, 7, packet, 60);
	put_host(0, 7, packet, 100);
	put_chain(1, 0, packet, 60, 0);
	put_chain(4, 0, control, 4, 1);
	put_chain(2, 0, NULL, 0, 200);
	put_host(1, 7, packet, 60);
	put_chain(3, 0, packet, 60, 0);
}

static void put_packet(uint32_t head, uint16_t operation, uint32_t host_port, uint32_t guest_port, uint32_t length,
		       uint32_t flags)
{
	uint8_t packet[60] = { 3, 0, 0, 0, 0, 0, 0, 0, 2 };

	memcpy(packet + 16, &guest_port, 4);
	memcpy(packet + 20, &host_port, 4);
	memcpy(packet + 24, &length, 4);
	packet[28] = 1;
	memcpy(packet + 30, &operation, 2);
	memcpy(packet + 32, &flags, 4);
	packet[37] = 1;		/* room for 256 bytes */
	put_chain(1, head, packet, 44 + length, 0);
}

static void seed_vsock(void)
{
	for (uint32_t i = 0; i < 8; i++)
		put_chain(0, i * 2, NULL, 0, 200);
	put_packet(0, 1, 80, 9, 0, 0);		/* request */
	put_host(0, 2, NULL, 0);
	put_host(0, 7, "answer", 6);
	put_packet(2, 5, 80, 9, 8, 0);
	put_packet(4, 6, 80, 9, 0, 0);
	put_packet(6, 7, 80, 9, 0, 0);
	put_host(1, 1, NULL, 0);
	put_packet(8, 2, 1u << 30, 5, 0, 0);	/* response */
	put_host(1, 7, "hello", 5);
	put_host(1, 4, NULL, 0);
	put_packet(10, 4, 1u << 30, 5, 0, 3);
	put_packet(12, 3, 80, 9, 0, 0);
}

static void seed_console(void)
{
	put_chain(0, 0, NULL, 0, 20);
	put_host(1, 7, "typed", 5);
	put_chain(1, 0, "printed", 7, 0);
}

static void seed_balloon(void)
{
	static const uint32_t pages[] = { 1, 2, 3, 0x200, 0x201, 9 };

	put_chain(0, 0, pages, sizeof(pages), 0);
	put_chain(1, 0, pages, sizeof(pages), 0);
	put_chain(2, 0, NULL, 0, 0x1800);
}

static void seed_mem(void)
{
	for (uint64_t type = 0; type < 4; type++) {
		const uint64_t request[3] = { (type + 3) % 4, 4 << 20, 2 };

		put_chain(0, (uint32_t)type * 2, request, 24, 10);
		put_chain(0, (uint32_t)type * 2, request, 24, 10);
	}
}

static void seeds_write(const char *folder)
{
	static void (*const makers[])(void) = {
		[HAKO_KIND_BLOCK] = seed_block, [HAKO_KIND_NET] = seed_net, [HAKO_KIND_VSOCK] = seed_vsock,
		[HAKO_KIND_CONSOLE] = seed_console, [HAKO_KIND_BALLOON] = seed_balloon, [HAKO_KIND_MEM] = seed_mem,
		[HAKO_KIND_PMEM] = NULL,
	};
	/* By itself, and with something in the middle of the way or at its end. */
	static const uint8_t ends[] = { TURN, SAVE_RESTORE, QUIESCE, DRIVER_START, UPDATE, RESTORE };

	for (uint32_t i = 0; i < sizeof(ends); i++) {
		char path[4096];
		FILE *file;

		seed_length = 0;
		put(i, 1);
		if (i % 2)
			put(ends[i], 1);
		if (makers[DEVICE]) {
			makers[DEVICE]();
		} else {
			put_chain(0, 0, "\0\0\0\0", 4, 4);
			put_chain(0, 2, NULL, 0, 64);
		}
		put(ends[i], 1);
		snprintf(path, sizeof(path), "%s/seed-%u", folder, i);
		file = fopen(path, "wb");
		if (!file || fwrite(seed, 1, seed_length, file) != seed_length || fclose(file))
			abort();
	}
}
