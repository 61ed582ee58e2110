/** QEMU's own monitor (QMP), asked only when L1 stands still: what its CPUs do. */
import { adoptSocket } from "./control-channel.ts";

interface Message {
  readonly id?: string;
  readonly return?: unknown;
}

const ANSWER_TIMEOUT_MS = 5000;
/** Lines of `info registers` that tell where a CPU is, whether it sleeps, and whether it takes interrupts. */
const tellingRegisters = /^(CPU#|RIP|CR0|CR3|EFER)/;
/** Lines of `info lapic` that tell which interrupts wait. */
const tellingApic = /^(Timer|ICR|ISR|IRR|dumping|\s)/;

export class LabMonitor {
  readonly #answers = new Map<string, (answer: unknown) => void>();
  #socket: Bun.Socket | undefined;
  #text = "";
  #negotiated = false;

  /** Takes over `fd`, the other end of a socket that QEMU serves QMP on. */
  static async open(fd: number): Promise<LabMonitor> {
    const monitor = new LabMonitor();
    const data = (_: unknown, chunk: Buffer) => monitor.#receive(chunk);
    monitor.#socket = await adoptSocket({ fd, socket: { data } });
    return monitor;
  }

  /** Where each CPU stands, now and a second later, and the interrupts that wait for it. */
  async cpuState(): Promise<string> {
    const first = await this.#registers();
    const apics = [await this.#ask("info lapic 0"), await this.#ask("info lapic 1")].join("\n");
    await Bun.sleep(1000);
    return `${first}\n${only(tellingApic, apics)}\na second later:\n${await this.#registers()}`;
  }

  async #registers(): Promise<string> {
    return only(tellingRegisters, await this.#ask("info registers -a"));
  }

  /** A command of the human monitor; what it prints, or why nothing came. */
  async #ask(command: string): Promise<string> {
    if (!this.#negotiated) await this.#execute("qmp_capabilities", {});
    this.#negotiated = true;
    const answer = await this.#execute("human-monitor-command", { "command-line": command });
    return typeof answer === "string" ? answer.replaceAll("\r", "") : `QEMU gives no "${command}"`;
  }

  async #execute(command: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    const id = crypto.randomUUID();
    const { promise, resolve } = Promise.withResolvers<unknown>();
    this.#answers.set(id, resolve);
    this.#socket?.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    const late = setTimeout(() => resolve(undefined), ANSWER_TIMEOUT_MS);
    return await promise.finally(() => clearTimeout(late));
  }

  #receive(chunk: Buffer): void {
    const lines = (this.#text + chunk.toString()).split("\n");
    this.#text = lines.pop() ?? "";
    for (const line of lines) {
      const message = JSON.parse(line) as Message;
      if (message.id === undefined) continue;
      this.#answers.get(message.id)?.(message.return);
      this.#answers.delete(message.id);
    }
  }
}

function only(telling: RegExp, text: string): string {
  return text
    .split("\n")
    .filter((line) => telling.test(line))
    .join("\n");
}
