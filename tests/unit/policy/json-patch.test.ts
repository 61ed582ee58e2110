import { expect, test } from "bun:test";
import { applyPatch } from "#policy/json-patch.ts";
import { fromJson, toJson } from "#policy/rego/value.ts";

const document = { a: { "x/y": 1, list: [1, 2, 3] }, "~": true };

/** Patches (RFC 6902, appendix A in spirit) and what they make of the document. */
const good: [patch: object[], expected: unknown][] = [
  [[{ op: "add", path: "/b", value: null }], { ...document, b: null }],
  [[{ op: "add", path: "/a/list/1", value: 9 }], { ...document, a: { "x/y": 1, list: [1, 9, 2, 3] } }],
  [[{ op: "add", path: "/a/list/-", value: 9 }], { ...document, a: { "x/y": 1, list: [1, 2, 3, 9] } }],
  [[{ op: "replace", path: "/a/x~1y", value: 2 }], { ...document, a: { "x/y": 2, list: [1, 2, 3] } }],
  [[{ op: "remove", path: "/~0" }], { a: document.a }],
  [[{ op: "remove", path: "/a/list/0" }], { ...document, a: { "x/y": 1, list: [2, 3] } }],
  [[{ op: "move", from: "/a/list", path: "/l" }], { a: { "x/y": 1 }, "~": true, l: [1, 2, 3] }],
  [[{ op: "copy", from: "/a/x~1y", path: "/c" }], { ...document, c: 1 }],
  [[{ op: "test", path: "/a/list", value: [1, 2, 3] }], document],
  [[{ op: "replace", path: "", value: { new: 1 } }], { new: 1 }],
  [
    [
      { op: "add", path: "/a/z", value: {} },
      { op: "add", path: "/a/z/q", value: 1 },
    ],
    { ...document, a: { ...document.a, z: { q: 1 } } },
  ],
];

for (const [patch, expected] of good) {
  test(`${JSON.stringify(patch)} is carried out`, () => {
    const before = fromJson(document);
    expect(toJson(applyPatch(before, fromJson(patch)))).toEqual(expected);
    expect(toJson(before)).toEqual(document);
  });
}

const bad: [patch: unknown, problem: string][] = [
  [{}, "no array"],
  [["x"], "no object"],
  [[{ op: "add", path: "b", value: 1 }], "no JSON pointer"],
  [[{ op: "add", path: "/no/b", value: 1 }], 'no member "no"'],
  [[{ op: "add", path: "/b" }], 'no "value"'],
  [[{ op: "replace", path: "/b", value: 1 }], 'no member "b"'],
  [[{ op: "remove", path: "/a/list/3" }], 'no element "3"'],
  [[{ op: "add", path: "/a/list/01", value: 1 }], 'no element "01"'],
  [[{ op: "test", path: "/~0", value: false }], "a test failed"],
  [[{ op: "eval", path: "/a", value: 1 }], '"eval" is unknown'],
  [[{ op: "add", path: "/a/x~1y/z", value: 1 }], "no members"],
];

for (const [patch, problem] of bad) {
  test(`${JSON.stringify(patch)} is refused`, () => {
    expect(() => applyPatch(fromJson(document), fromJson(patch))).toThrow(problem);
  });
}
