import { HakoError } from "#base/error.ts";
import type { Command } from "./command.ts";
import { JSON_OPTION } from "./command.ts";
import { printError } from "./output.ts";

export const command: Command = {
  name: "run",
  usage: "[OPTIONS] IMAGE [COMMAND [ARG...]]",
  summary: "Run a container in a new virtual machine.",
  details: `IMAGE is one of
  oci:DIR[:TAG]          an OCI image layout
  oci-archive:FILE       the same as a tar file
  docker-archive:FILE    what "docker save" writes
  rootfs:DIR             a directory that holds a root file system

The exit code is the container's; 125 when hako itself failed, 126 when the command cannot be executed, 127 when it
does not exist. A container that has stopped stays listed (hako ps -a) until "hako rm", unless it was run with --rm; what
it wrote to its root file system is gone with its virtual machine.

With --net tap the host has one end of the container's network at the first address of a small network of its own; the
container's default route leads there. With --net nat the host also forwards to what it reaches itself, under its own
address, and the container has the host's name servers. With --net netns:PATH the container gets the interfaces,
addresses and routes of a network namespace that exists already.

With --runtime linux there is NO virtual machine: the container is a set of processes on this host, in namespaces of its own, and
shares the host's kernel with everything else. Use it for trying things and for tests, not for code that nobody trusts.

A file given with --volume is copied into the container when it starts. A directory with ":ro" is packed into a read-only
image; without, it is shared, for which the host needs virtiofsd. A block device becomes one of the container.`,
  options: [
    { name: "rm", kind: "flag", help: "Forget the container when it has stopped" },
    { name: "detach", short: "d", kind: "flag", help: "Run in the background and print the container's id" },
    { name: "interactive", short: "i", kind: "flag", help: "Pass standard input on" },
    { name: "tty", short: "t", kind: "flag", help: "Give the container a terminal" },
    { name: "name", kind: "value", placeholder: "NAME", help: "Name of the container" },
    {
      name: "hostname",
      kind: "value",
      placeholder: "NAME",
      help: "Host name inside (default: the short id)",
    },
    {
      name: "env",
      short: "e",
      kind: "list",
      placeholder: "NAME[=VALUE]",
      help: "Set an environment variable",
    },
    { name: "workdir", short: "w", kind: "value", placeholder: "DIR", help: "Working directory inside" },
    {
      name: "user",
      short: "u",
      kind: "value",
      placeholder: "USER[:GROUP]",
      help: "Names or numbers to run as",
    },
    { name: "entrypoint", kind: "value", placeholder: "PROGRAM", help: "Replace the image's entry point" },
    { name: "cpus", kind: "value", placeholder: "N", help: "CPUs, such as 1.5 (default: 1)" },
    {
      name: "memory",
      short: "m",
      kind: "value",
      placeholder: "SIZE",
      help: "Memory of the virtual machine (default: 256m)",
    },
    {
      name: "runtime",
      kind: "value",
      placeholder: "KIND",
      choices: ["vm", "linux"],
      help: "vm, or linux: no virtual machine, the host's kernel (default: vm)",
    },
    {
      name: "hypervisor",
      kind: "value",
      placeholder: "NAME",
      choices: ["auto", "builtin", "dragonball", "qemu"],
      help: "Virtual machine monitor",
    },
    {
      name: "machine",
      kind: "value",
      placeholder: "TYPE",
      choices: ["microvm", "q35"],
      help: "Machine type of QEMU",
    },
    {
      name: "net",
      kind: "value",
      placeholder: "MODE",
      help: "Network: none, tap, nat or netns:PATH (default: none)",
    },
    {
      name: "volume",
      short: "v",
      kind: "list",
      placeholder: "HOST:GUEST[:ro]",
      help: "Give a file or directory",
    },
    { name: "read-only", kind: "flag", help: "Make the root file system read-only" },
    { name: "cap-add", kind: "list", placeholder: "CAP", help: "Add a capability, or ALL" },
    { name: "cap-drop", kind: "list", placeholder: "CAP", help: "Take a capability away, or ALL" },
    {
      name: "security-opt",
      kind: "list",
      placeholder: "OPTION",
      help: "seccomp=FILE, seccomp=unconfined or no-new-privileges",
    },
    { name: "no-template", kind: "flag", help: "Boot the machine instead of cloning a template" },
    {
      name: "timing",
      kind: "optional",
      placeholder: "json",
      choices: ["json"],
      help: "Print where the time went to standard error",
    },
    JSON_OPTION,
  ],
  positionals: { min: 1, max: Number.POSITIVE_INFINITY, stopAtFirst: true },
  async run(input) {
    const { parseRunRequest } = await import("./run-request.ts");
    const request = parseRunRequest(input, process.cwd(), process.env);
    if (request.runtime === "linux_container") {
      printError("no virtual machine (--runtime linux): the container shares the kernel of this host");
    }
    if (input.flag("detach")) {
      if (input.optional("timing") !== undefined) {
        throw new HakoError("INVALID_ARGUMENT", "--timing tells about a run in the foreground: leave out -d");
      }
      const { runDetached } = await import("./run-detached.ts");
      return runDetached(request, { json: input.flag("json") });
    }
    const { runForeground } = await import("./run-foreground.ts");
    return runForeground(request, { timing: input.optional("timing") });
  },
};
