/** Data hubs in this process and in another one, and what happens when the other one comes and goes. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HakoError } from "#base/error.ts";
import { ExternalHub } from "#cdh/external/hub.ts";
import { openOwnHub } from "#cdh/own/open.ts";
import { closeDataHub, dataHub, type HubOptions, openDataHub } from "#cdh/process-hub.ts";
import { unixListen } from "#sys/socket.ts";
import { dataHubContract } from "../contract/data-hub.ts";
import { failure } from "../support/agent-process.ts";
import { makeHubDirectory } from "../support/sealed-secret.ts";

const checkout = join(import.meta.dir, "../..");
const base = mkdtempSync(join(tmpdir(), "hako-cdh-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

let directories = 0;
const directory = () => join(base, `d${++directories}`);
const password = "kbs:///default/secret/password";

/** Our hub as a process of its own. */
class HubProcess implements AsyncDisposable {
  readonly #child: Bun.Subprocess;

  constructor(configFile: string) {
    const command = [
      process.execPath,
      join(checkout, "src/main.ts"),
      "confidential-data-hub",
      "-c",
      configFile,
    ];
    this.#child = Bun.spawn(command, { cwd: checkout, stdio: ["ignore", "ignore", "pipe"] });
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  /** Its exit code after it was asked to end. */
  async stop(): Promise<number> {
    this.#child.kill("SIGTERM");
    return await this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

dataHubContract("own", async () => {
  const { configFile, seal } = await makeHubDirectory(directory());
  const hub = await openOwnHub(configFile, { timeoutMs: 10_000 });
  return { hub, seal, [Symbol.asyncDispose]: () => hub[Symbol.asyncDispose]() };
});

dataHubContract("external", async () => {
  const path = directory();
  const { configFile, seal } = await makeHubDirectory(path);
  const process = new HubProcess(configFile);
  const hub = new ExternalHub({
    socket: join(path, "cdh.sock"),
    timeoutMs: 30_000,
    imagePullTimeoutMs: 30_000,
  });
  return {
    hub,
    seal,
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      expect(await process.stop()).toBe(0);
    },
  };
});

describe("an external hub", () => {
  test("is waited for, and found again after it was killed under its callers", async () => {
    const path = directory();
    const { configFile } = await makeHubDirectory(path);
    const socket = join(path, "cdh.sock");
    await using hub = new ExternalHub({ socket, timeoutMs: 30_000, imagePullTimeoutMs: 30_000 });
    const early = hub.getResource(password);
    const first = new HubProcess(configFile);
    expect(Buffer.from(await early).toString()).toBe("open sesame");
    await first.kill();
    // A killed process leaves its socket behind.
    rmSync(socket);
    const calls = Array.from({ length: 20 }, () => hub.getResource(password));
    await using _second = new HubProcess(configFile);
    for (const bytes of await Promise.all(calls)) expect(Buffer.from(bytes).toString()).toBe("open sesame");
  });

  test("that does not answer costs the time limit, no more, and does not hold others up", async () => {
    const socket = join(base, "silent.sock");
    using _silent = unixListen(socket);
    await using hub = new ExternalHub({ socket, timeoutMs: 200, imagePullTimeoutMs: 200 });
    const { code, message } = await failure(hub.getResource(password));
    expect(code).toBe("DEADLINE_EXCEEDED");
    expect(message).toContain(
      `Cannot get resource "${password}" by the confidential data hub at unix://${socket}`,
    );
    const stop = new AbortController();
    const cancelled = failure(hub.getResource(password, stop.signal));
    stop.abort();
    expect((await cancelled).code).toBe("CANCELLED");
  });

  test("that is not there is named, with what the last attempt found", async () => {
    const socket = join(base, "nobody.sock");
    await using hub = new ExternalHub({ socket, timeoutMs: 100, imagePullTimeoutMs: 100 });
    const error = await hub.getResource(password).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect((error as HakoError).fullMessage).toContain(`Cannot connect to "${socket}"`);
  });

  test("that is closed ends the calls under way", async () => {
    const socket = join(base, "closed.sock");
    using _silent = unixListen(socket);
    const hub = new ExternalHub({ socket, timeoutMs: 30_000, imagePullTimeoutMs: 30_000 });
    const pending = failure(hub.getResource(password));
    await Bun.sleep(20);
    await hub[Symbol.asyncDispose]();
    expect((await pending).code).toBe("UNAVAILABLE");
    expect(hub.isAvailable()).toBe(false);
    expect((await failure(hub.getResource(password))).code).toBe("UNAVAILABLE");
  });
});

describe("the hub of a process", () => {
  const options = (changes: Partial<HubOptions>): HubOptions => ({
    kind: "auto",
    socket: join(base, "no-such.sock"),
    configFile: "",
    timeoutMs: 5000,
    imagePullTimeoutMs: 5000,
    ...changes,
  });

  test("is none where nothing is, and says what is missing", async () => {
    await openDataHub(options({}));
    expect(dataHub().isAvailable()).toBe(false);
    expect(await failure(dataHub().unsealSecret(Buffer.from("x")))).toEqual({
      code: "UNAVAILABLE",
      message: `Cannot unseal a secret: the confidential data hub is missing, there is no socket "${base}/no-such.sock"`,
    });
    await closeDataHub();
  });

  test("is our own where a file configures it, and writes the credentials", async () => {
    const path = directory();
    const credential = join(path, "kbs/registry/token");
    const extra = `[[credentials]]\npath = "${credential}"\nresource_uri = "${password}"\n`;
    const { configFile } = await makeHubDirectory(path, extra);
    await openDataHub(options({ configFile }));
    expect(dataHub().place).toBe("in this process");
    expect(readFileSync(credential, "utf8")).toBe("open sesame");
    expect(statSync(credential).mode & 0o777).toBe(0o600);
    const hub = dataHub();
    await closeDataHub();
    expect(hub.isAvailable()).toBe(false);
    expect((await failure(hub.getResource(password))).code).toBe("UNAVAILABLE");
    expect(dataHub().isAvailable()).toBe(false);
  });

  test("does not start with a configuration that is wrong", async () => {
    const path = directory();
    const { configFile } = await makeHubDirectory(
      path,
      '[[credentials]]\npath = "/etc/passwd"\nresource_uri = "kbs:///a/b/c"\n',
    );
    expect((await failure(openDataHub(options({ configFile })))).message).toContain("it is not below");
    expect((await failure(openDataHub(options({ kind: "own", configFile: `${path}/none.toml` })))).code).toBe(
      "NOT_FOUND",
    );
    await closeDataHub();
  });
});
