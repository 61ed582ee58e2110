/** Reads the JUnit report that `bun test` writes in L1. */

export interface CaseResult {
  /** Names of the describe blocks and of the test, joined by " > ". */
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
  /** Why it failed; empty otherwise. */
  readonly message: string;
}

const tag = /<(\/?)(testsuite|testcase|failure|error|skipped)\b([^>]*?)(\/?)>([^<]*)/g;

/**
 * The results in the order of the report. Bun escapes `<`, `>`, `&`, quotes and line ends everywhere, so that tags can
 * be told from text without a parser for XML. The outermost suite is the file and gives no name.
 */
export function parseJunit(xml: string): CaseResult[] {
  const results: CaseResult[] = [];
  const suites: string[] = [];
  for (const [, closing, kind, attributes = "", selfClosing, text = ""] of xml.matchAll(tag)) {
    if (kind === "testsuite") {
      if (closing) suites.pop();
      else if (!selfClosing) suites.push(attribute(attributes, "name"));
    } else if (kind === "testcase") {
      if (closing) continue;
      const name = [...suites.slice(1), attribute(attributes, "name")].join(" > ");
      results.push({ name, outcome: "passed", message: "" });
    } else if (!closing) {
      const last = results.pop();
      if (!last) throw new Error(`The report has a <${kind}> before the first test`);
      const message = decodeText(text).trim() || attribute(attributes, "message");
      results.push(
        kind === "skipped" ? { ...last, outcome: "skipped" } : { ...last, outcome: "failed", message },
      );
    }
  }
  return results;
}

function attribute(attributes: string, name: string): string {
  return decodeText(new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
}

const entities: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

function decodeText(text: string): string {
  return text.replaceAll(/&(?:#(\d+)|(\w+));/g, (whole, code?: string, name?: string) =>
    code === undefined ? (entities[name ?? ""] ?? whole) : String.fromCodePoint(Number(code)),
  );
}
