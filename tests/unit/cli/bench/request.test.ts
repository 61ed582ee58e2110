import { expect, test } from "bun:test";
import { parseSize } from "#base/size.ts";
import { parseArguments } from "#cli/arguments.ts";
import { command, parseBenchRequest } from "#cli/bench.ts";

const parse = (...words: string[]) => parseBenchRequest(parseArguments(command, words), parseSize);

test("a benchmark without options measures hako's own image", () => {
  expect(parse("startup")).toEqual({
    benchmark: "startup",
    runtimes: [],
    count: 20,
    concurrency: 1,
    sizeMib: 64,
    command: ["/true"],
    idleCommand: ["/pause"],
    work: [],
    json: false,
  });
});

test("options come before or after the benchmark's name, the command after --", () => {
  const request = parse(
    "--image",
    "oci:x",
    "startup",
    "-n",
    "7",
    "-c",
    "3",
    "--runtime",
    "qemu,runc",
    "--",
    "ls",
    "-l",
  );
  expect(request).toMatchObject({
    count: 7,
    concurrency: 3,
    runtimes: ["qemu", "runc"],
    command: ["ls", "-l"],
  });
  expect(request.idleCommand).toEqual(["sleep", "1000000"]);
});

const refused: readonly (readonly [words: string[], message: string])[] = [
  [["speed"], 'There is no benchmark "speed"'],
  [["startup", "-n", "0"], '--count "0"'],
  [["startup", "-n", "2.5"], '--count "2.5"'],
  [["startup", "-c", "1001"], '--concurrency "1001"'],
  [["startup", "--", "ls"], "A command needs --image"],
  [["io"], "io needs --image"],
  [["density", "--work", "true"], "--work needs --image"],
];
for (const [words, message] of refused) {
  test(`hako bench ${words.join(" ")} is refused`, () => {
    expect(() => parse(...words)).toThrow(message);
  });
}
