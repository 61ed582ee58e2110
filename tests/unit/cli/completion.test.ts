import { describe, expect, test } from "bun:test";
import { formatBashScript } from "#cli/completion.ts";
import { COMMANDS } from "#cli/main.ts";

/** What bash offers for a line that ends at the cursor. */
async function complete(line: string): Promise<string[]> {
  const commands = await Promise.all(
    [...COMMANDS.values()].map(async (entry) => (await entry.load()).command),
  );
  const words = line.split(" ");
  const script = `${formatBashScript(commands)}
hako() { printf 'ID NAME\\nabc123 first\\ndef456 second\\n'; }
COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}
_hako; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = Bun.spawnSync(["bash", "-c", script]);
  expect(stderr.toString()).toBe("");
  return stdout
    .toString()
    .split("\n")
    .filter((word) => word !== "");
}

describe("the bash completion", () => {
  test("offers commands", async () => {
    expect(await complete("hako in")).toEqual(["inspect", "install"]);
    expect(await complete("hako ")).toContain("run");
  });

  test("offers options and their choices", async () => {
    expect(await complete("hako run --cap")).toEqual(["--cap-add", "--cap-drop"]);
    expect(await complete("hako run --machine ")).toEqual(["microvm", "q35"]);
  });

  test("offers containers", async () => {
    expect(await complete("hako exec ")).toEqual(["abc123", "first", "def456", "second"]);
    expect(await complete("hako rm fi")).toEqual(["first"]);
  });
});
