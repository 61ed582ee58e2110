/** Holds the import table of the design: who may import whom, besides itself and base. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const src = join(import.meta.dir, "../../../src");

const table: Readonly<Record<string, readonly string[]>> = {
  base: [],
  proto: [],
  oci: [],
  telemetry: [],
  sys: [],
  linux: ["sys", "telemetry"],
  ttrpc: ["sys", "proto", "telemetry"],
  config: ["oci", "telemetry"],
  image: ["sys", "linux", "oci", "telemetry"],
  vmm: ["sys", "linux", "telemetry"],
  hypervisor: ["config", "telemetry"],
  device: ["linux", "config", "hypervisor", "telemetry"],
  "agent-client": ["sys", "ttrpc", "proto", "oci", "telemetry"],
  resource: ["linux", "config", "oci", "image", "device", "hypervisor", "agent-client", "telemetry"],
  runtime: ["config", "oci", "sys", "linux", "hypervisor", "device", "resource", "agent-client", "telemetry"],
  monitor: ["agent-client", "ttrpc", "telemetry"],
  shim: [
    "runtime",
    "monitor",
    "config",
    "ttrpc",
    "proto",
    "oci",
    "linux",
    "sys",
    "image",
    "agent-client",
    "telemetry",
  ],
  cli: [
    "runtime",
    "shim",
    "monitor",
    "config",
    "ttrpc",
    "proto",
    "oci",
    "linux",
    "sys",
    "image",
    "agent-client",
    "policy",
    "telemetry",
  ],
  policy: ["oci", "telemetry"],
  cdh: ["sys", "linux", "oci", "proto", "ttrpc", "image", "telemetry"],
  agent: ["sys", "linux", "oci", "proto", "ttrpc", "cdh", "policy", "telemetry"],
};

/** What a hypervisor driver may import on top of the interface. */
const driverExtra: Readonly<Record<string, readonly string[]>> = {
  "": [],
  builtin: ["sys", "linux", "vmm"],
};
const anyDriverExtra = ["sys", "linux"];

interface Import {
  readonly file: string;
  readonly specifier: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(src, file), "utf8");
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*)"([^"\n]+)"/g;
  return [...text.matchAll(pattern)].map((match) => ({ file, specifier: match[1] ?? "" }));
}

const files = [...new Bun.Glob("**/*.ts").scanSync(src)].filter((file) => !file.startsWith("proto/")).sort();
const imports = files.flatMap(importsOf);

function folderOf(path: string): string {
  return path.split("/")[0] ?? "";
}

/** Second path part of a driver's file, "" for the interface's own files. */
function driverOf(path: string): string {
  const parts = path.split("/");
  return parts.length > 2 ? (parts[1] ?? "") : "";
}

function violation({ file, specifier }: Import): string | undefined {
  if (specifier.startsWith("../")) return `${file}: "${specifier}" leaves its folder, use "#folder/file.ts"`;
  if (!specifier.startsWith("#")) return undefined;
  const from = folderOf(file);
  const to = folderOf(specifier.slice(1));
  if (file === "main.ts" || to === "base" || (to === from && from !== "hypervisor")) return undefined;
  if (from === "hypervisor") return driverViolation(file, specifier, to);
  if (to === "hypervisor" && driverOf(specifier.slice(1)) !== "") {
    return `${file}: "${specifier}" names a hypervisor driver; only src/hypervisor/registry.ts may`;
  }
  if (table[from]?.includes(to)) return undefined;
  return `${file}: ${from} may not import ${to} ("${specifier}")`;
}

function driverViolation(file: string, specifier: string, to: string): string | undefined {
  const driver = driverOf(file);
  const target = driverOf(specifier.slice(1));
  if (to === "hypervisor") {
    const allowed = target === "" || target === driver || file === "hypervisor/registry.ts";
    return allowed ? undefined : `${file}: drivers never import each other ("${specifier}")`;
  }
  const extra = driver === "" ? [] : (driverExtra[driver] ?? anyDriverExtra);
  if (table.hypervisor?.includes(to) || extra.includes(to)) return undefined;
  return `${file}: hypervisor/${driver} may not import ${to} ("${specifier}")`;
}

test("every folder of src has a row in the import table", () => {
  const folders = readdirSync(src, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(folders.map((entry) => entry.name).filter((name) => !(name in table))).toEqual([]);
});

test("every import is allowed by the table", () => {
  expect(imports.length).toBeGreaterThan(50);
  expect(imports.map(violation).filter((message) => message !== undefined)).toEqual([]);
});

test("the check itself finds a forbidden import", () => {
  const bad: Import[] = [
    { file: "base/x.ts", specifier: "#sys/fd.ts" },
    { file: "agent/x.ts", specifier: "#runtime/sandbox.ts" },
    { file: "runtime/x.ts", specifier: "#hypervisor/qemu/driver.ts" },
    { file: "hypervisor/qemu/x.ts", specifier: "#hypervisor/builtin/y.ts" },
    { file: "hypervisor/qemu/x.ts", specifier: "#vmm/layout.ts" },
    { file: "cli/x.ts", specifier: "../runtime/x.ts" },
  ];
  expect(bad.map(violation).filter((message) => message === undefined)).toEqual([]);
});

test("only src/sys imports the foreign function interfaces", () => {
  const users = imports.filter(({ specifier }) => specifier === "bun:ffi" || specifier === "ffi-rs");
  expect(users.filter(({ file }) => folderOf(file) !== "sys")).toEqual([]);
  expect(users.length).toBeGreaterThan(0);
});

test("there are no index barrels and no catch-all file names", () => {
  const names = files.map((file) => file.split("/").at(-1) ?? "");
  expect(names.filter((name) => /^(index|utils?|helpers?|common|misc|types)\.ts$/.test(name))).toEqual([]);
});

test("each folder of src has a README of at most 40 lines", () => {
  const folders = Object.keys(table).filter(
    (name) => name !== "proto" && files.some((file) => folderOf(file) === name),
  );
  const lengths = folders.map((name) => {
    const path = join(src, name, "README.md");
    try {
      return [name, readFileSync(path, "utf8").trimEnd().split("\n").length] as const;
    } catch {
      return [name, 0] as const;
    }
  });
  expect(lengths.filter(([, lines]) => lines === 0 || lines > 40)).toEqual([]);
});
