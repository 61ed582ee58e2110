import { existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { HakoError } from "#base/error.ts";

const ADDRESS = /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;
const VFIO_DRIVER = "vfio-pci";

/** A PCI device of the host by its parts in sysfs (Documentation/ABI/testing/sysfs-bus-pci). */
export class PciDevice {
  /** `0000:3b:00.1` */
  readonly address: string;
  readonly #bus: string;
  readonly #directory: string;

  /** Throws INVALID_ARGUMENT for what is no address, NOT_FOUND without such a device. */
  constructor(address: string, sysfs = "/sys") {
    if (!ADDRESS.test(address)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot use ${JSON.stringify(address)} as a PCI address`);
    }
    this.address = address;
    this.#bus = join(sysfs, "bus/pci");
    this.#directory = join(this.#bus, "devices", address);
    if (!existsSync(this.#directory)) {
      throw new HakoError("NOT_FOUND", `There is no PCI device "${address}"`);
    }
  }

  /** Name of the driver that has the device; undefined when none has. */
  get driver(): string | undefined {
    return this.#linkName("driver");
  }

  /** Throws FAILED_PRECONDITION where the host has no IOMMU for it. */
  get iommuGroup(): number {
    const group = Number(this.#linkName("iommu_group"));
    if (Number.isInteger(group)) return group;
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot pass PCI device "${this.address}" on: it has no IOMMU group (switch the IOMMU on in firmware and kernel)`,
    );
  }

  /** Gives the device to vfio-pci; `restore` gives it back to the driver that it had. */
  bindVfio(): void {
    this.#rebind(VFIO_DRIVER);
    if (this.driver === VFIO_DRIVER) return;
    throw new HakoError(
      "FAILED_PRECONDITION",
      `Cannot bind PCI device "${this.address}" to ${VFIO_DRIVER}: is the kernel module loaded?`,
    );
  }

  restore(): void {
    this.#rebind("");
  }

  /** Takes the device from its driver and lets the bus look for one again, the named one if it is not empty. */
  #rebind(driver: string): void {
    this.#write(join(this.#directory, "driver_override"), `${driver}\n`);
    if (this.driver !== undefined) this.#write(join(this.#directory, "driver/unbind"), this.address);
    this.#write(join(this.#bus, "drivers_probe"), this.address);
  }

  #linkName(name: string): string | undefined {
    try {
      return basename(readlinkSync(join(this.#directory, name)));
    } catch {
      return undefined;
    }
  }

  #write(path: string, text: string): void {
    try {
      writeFileSync(path, text);
    } catch (cause) {
      throw new HakoError("FAILED_PRECONDITION", `Cannot give PCI device "${this.address}" another driver`, {
        cause,
      });
    }
  }

  /** Vendor and device id, `8086:1572`. */
  get model(): string {
    const read = (name: string) =>
      readFileSync(join(this.#directory, name), "utf8").trim().replace(/^0x/, "");
    return `${read("vendor")}:${read("device")}`;
  }
}
