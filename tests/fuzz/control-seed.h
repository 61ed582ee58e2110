/* SPDX-License-Identifier: Apache-2.0 */
/* Messages for control-fuzz.c to begin from: the life of a machine with every kind of device. */
static uint8_t seed[16384];
static size_t seed_length;

static void put(const void *bytes, size_t length)
{
	if (length > sizeof(seed) - seed_length)
		abort();
	if (length)
		memcpy(seed + seed_length, bytes, length);
	seed_length += length;
}

/* `sorts`: of the descriptors, two bits each, the first one lowest. */
static void put_message(uint8_t type, uint8_t fd_count, uint8_t sorts, const void *payload, size_t length,
			const void *more, size_t more_length)
{
	const size_t whole = length + more_length;
	const uint8_t head[4] = { type, (uint8_t)(fd_count | sorts << 2), (uint8_t)whole, (uint8_t)(whole >> 8) };

	put(head, sizeof(head));
	put(payload, length);
	put(more, more_length);
}

static void put_device(uint32_t kind, uint32_t queues, uint8_t fd_count, uint8_t sorts, const void *config, size_t length)
{
	struct hako_device_add add = { .slot = kind, .kind = kind, .gpa = 0xd0000000 + kind * 4096, .gsi = 6,
				       .queues = queues, .id = "fuzz" };

	put_message(HAKO_DEVICE_ADD, fd_count, sorts, &add, sizeof(add), config, length);
}

static void put_devices(void)
{
	static const struct hako_block block = { .size = 70000, .limit = { .bytes_rate = 1000 } };
	static const struct hako_net net = { .mtu = 1500 };
	static const struct hako_vsock vsock = { .cid = 3 };
	static const struct hako_pmem pmem = { .gpa = 8 << 20, .size = 2 << 20, .memory_slot = 8 };
	static const struct hako_console console = { .columns = 80, .rows = 25 };
	static const struct hako_balloon balloon = { .target = 1 << 20 };
	static const struct hako_mem mem = { .gpa = 16 << 20, .size = 8 << 20, .block_size = 2 << 20, .memory_slot = 9 };

	put_device(HAKO_KIND_BLOCK, 2, 1, 0, &block, sizeof(block));
	put_device(HAKO_KIND_NET, 1, 1, 2, &net, sizeof(net));
	put_device(HAKO_KIND_VSOCK, 0, 1, 3, &vsock, sizeof(vsock));
	put_device(HAKO_KIND_PMEM, 0, 1, 0, &pmem, sizeof(pmem));
	put_device(HAKO_KIND_CONSOLE, 0, 1, 0, &console, sizeof(console));
	put_device(HAKO_KIND_RNG, 0, 0, 0, NULL, 0);
	put_device(HAKO_KIND_BALLOON, 0, 0, 0, &balloon, sizeof(balloon));
	put_device(HAKO_KIND_MEM, 0, 0, 0, &mem, sizeof(mem));
}

static void put_sections(uint8_t type, const uint32_t *kinds, size_t count, uint32_t bytes, bool vcpu)
{
	static const uint8_t zeros[4096];
	const uint8_t head[4] = { type, 0, (uint8_t)((count * (8 + bytes) + (vcpu ? 8 : 0))),
				  (uint8_t)((count * (8 + bytes) + (vcpu ? 8 : 0)) >> 8) };

	put(head, sizeof(head));
	put(zeros, vcpu ? 8 : 0);
	for (size_t i = 0; i < count; i++) {
		const struct hako_section section = { .kind = kinds[i], .length = bytes };

		put(&section, sizeof(section));
		put(zeros, bytes);
	}
}

static void seed_make(uint32_t which)
{
	static const struct hako_machine_create create = { .vcpus = 2, .running = 1, .flags = 7, .power_port = 0x600,
							   .mmio_base = 0xd0000000, .mmio_size = 0x100000 };
	static const struct hako_memory_add add = { .size = 64 << 10 };
	static const struct hako_memory_write write = { .gpa = 4096 };
	static const struct hako_memory_load load = { .gpa = 8192, .length = 4096 };
	static const struct hako_memory_save save = { .slot = 0 };
	static const uint32_t vcpu_kinds[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
	static const uint32_t machine_kinds[] = { 32, 33, 34, 35, 36 };
	static const uint32_t words[2] = { 1, 0 };

	put_message(HAKO_HELLO, 0, 0, NULL, 0, NULL, 0);
	put_message(HAKO_MACHINE_CREATE, 2, 0, &create, sizeof(create), NULL, 0);
	put_message(HAKO_MEMORY_ADD, 0, 0, &add, sizeof(add), NULL, 0);
	put_message(HAKO_MEMORY_WRITE, 0, 0, &write, sizeof(write), "hello", 5);
	put_message(HAKO_MEMORY_LOAD, 1, 0, &load, sizeof(load), NULL, 0);
	if (which & 1)
		put_devices();
	if (which & 2) {
		put_sections(HAKO_VCPU_PUT, vcpu_kinds, 1 + which % 12, 256, true);
		put_sections(HAKO_MACHINE_PUT, machine_kinds, 5, 520, false);
	}
	if (which & 1) {
		/* As hako_virtio_save writes it (virtio/device.c): version, kind, …, at 48 the number of queues. */
		const struct hako_device_slot at = { .slot = HAKO_KIND_RNG };
		const uint32_t state[24] = { 1, HAKO_KIND_RNG, [12] = 1 };

		put_message(HAKO_DEVICE_PUT, 0, 0, &at, sizeof(at), state, sizeof(state));
	}
	put_message(HAKO_START, 0, 0, NULL, 0, NULL, 0);
	put_message(HAKO_INTERRUPT, 0, 0, words, 8, NULL, 0);
	put_message(HAKO_VCPU_LIMIT, 0, 0, words, 8, NULL, 0);
	put_message(HAKO_PAUSE, 0, 0, NULL, 0, NULL, 0);
	put_message(HAKO_MACHINE_GET, 0, 0, NULL, 0, NULL, 0);
	put_sections(HAKO_VCPU_GET, vcpu_kinds, 0, 0, true);
	put_message(HAKO_MEMORY_SAVE, 1, 0, &save, sizeof(save), NULL, 0);
	for (uint32_t slot = 1; which & 1 && slot < 28; slot++) {
		const struct hako_device_slot at = { .slot = slot };

		put_message(HAKO_DEVICE_GET, 0, 0, &at, sizeof(at), NULL, 0);
		put_message(HAKO_DEVICE_UPDATE, 0, 0, &at, sizeof(at), "\0\0\0\0\0\0\0\0", 8);
	}
	put_message(HAKO_METRICS, 0, 0, NULL, 0, NULL, 0);
	put_message(HAKO_RESUME, 0, 0, NULL, 0, NULL, 0);
	for (uint32_t slot = 1; which & 1 && slot < 28; slot++) {
		const struct hako_device_slot at = { .slot = slot };

		put_message(HAKO_DEVICE_REMOVE, 0, 0, &at, sizeof(at), NULL, 0);
	}
}

static void seeds_write(const char *folder)
{
	for (uint32_t i = 0; i < 12; i++) {
		char path[4096];
		FILE *file;

		seed_length = 0;
		seed_make(i);
		snprintf(path, sizeof(path), "%s/seed-%u", folder, i);
		file = fopen(path, "wb");
		if (!file || fwrite(seed, 1, seed_length, file) != seed_length || fclose(file))
			abort();
	}
}
