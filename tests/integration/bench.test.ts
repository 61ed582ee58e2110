/** hako bench: the program it starts, its page in a browser, and what it refuses. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeProgram } from "#base/static-program.ts";
import { formatHtml } from "#cli/bench/html-report.ts";
import { makeTestRootfs } from "#cli/bench/test-image.ts";
import { startupReport } from "../support/bench-report.ts";
import { HakoHost, hakoTest } from "../support/hako-host.ts";
import { testIf } from "../support/skip.ts";

const dir = mkdtempSync(join(tmpdir(), "bench-"));
afterAll(() => rmSync(dir, { recursive: true }));

test("the test image's programs are valid executables: one exits with 0, one sleeps until it is killed", async () => {
  const rootfs = makeTestRootfs(join(dir, "rootfs"));
  expect(await Bun.spawn([join(rootfs, "true")]).exited).toBe(0);
  const sleeper = Bun.spawn([join(rootfs, "pause")]);
  expect(await Promise.race([sleeper.exited, Bun.sleep(200).then(() => "still there")])).toBe("still there");
  sleeper.kill("SIGTERM");
  await sleeper.exited;
  expect(sleeper.signalCode).toBe("SIGTERM");
  expect(statSync(join(rootfs, "true")).size).toBeLessThan(150);
});

test("encodeProgram() runs just the code that it is given", async () => {
  const file = join(dir, "seven");
  // mov edi, 7; mov eax, 60; syscall
  writeFileSync(file, encodeProgram([0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]), { mode: 0o755 });
  expect(await Bun.spawn([file]).exited).toBe(7);
});

const chromium = Bun.which("chromium");
const browserTest = testIf(chromium !== null, "needs chromium (Debian package chromium)");

/** The document as the browser has it after it has laid out the page. */
async function browse(script: string, ...flags: string[]): Promise<string> {
  const file = join(dir, "page.html");
  const probe = `<script>addEventListener("load", () => { document.body.dataset.probe = String(${script}); });</script>`;
  writeFileSync(file, formatHtml(startupReport).replace("</body>", `${probe}</body>`));
  const options = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    `--user-data-dir=${dir}/profile`,
    "--window-size=1100,900",
  ];
  const child = Bun.spawn([chromium ?? "", ...options, ...flags, "--dump-dom", `file://${file}`], {
    stdout: "pipe",
    stderr: "ignore",
  });
  const dom = await child.stdout.text();
  await child.exited;
  return /data-probe="([^"]*)"/.exec(dom)?.[1] ?? dom;
}

browserTest(
  "the page shows its plots in a browser: every bar and label lies inside of its drawing, nothing is loaded",
  async () => {
    const outside = `[...document.querySelectorAll("svg")].flatMap((svg) => {
      const box = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("rect, text, circle")].filter((element) => {
        const { left, right, top, bottom } = element.getBoundingClientRect();
        return left < box.left - 1 || right > box.right + 1 || top < box.top - 1 || bottom > box.bottom + 1;
      });
    }).length`;
    const loaded = `performance.getEntriesByType("resource").length`;
    const plots = `document.querySelectorAll("svg").length`;
    const wide = `document.documentElement.scrollWidth <= document.documentElement.clientWidth`;
    expect(await browse(`[${outside}, ${loaded}, ${plots}, ${wide}]`)).toBe("0,0,2,true");
  },
  120_000,
);

browserTest(
  "the page follows the reader's choice of light or dark",
  async () => {
    const background = "getComputedStyle(document.body).backgroundColor";
    expect(await browse(background, "--blink-settings=preferredColorScheme=1")).toBe("rgb(255, 255, 255)");
    expect(await browse(background, "--blink-settings=preferredColorScheme=0")).toBe("rgb(18, 22, 29)");
  },
  120_000,
);

hakoTest(
  "a runtime that does not exist, and one that this host lacks, are refused before anything starts",
  async () => {
    using host = new HakoHost();
    const unknown = await host.run(["bench", "startup", "--runtime", "nix"]);
    expect(unknown.code).toBe(125);
    expect(unknown.stderr).toContain('Unknown runtime "nix": there are auto, ');
    const missing = await host.run(["bench", "startup", "--runtime", "runc"], {
      env: { PATH: "/nonexistent" },
    });
    expect(missing.stderr).toContain("Cannot measure runc: it is not installed");
  },
);
