/** A sample of Prometheus' text format: name, labels, value; times are not taken. */
const SAMPLE =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$/;
const COMMENT = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/;
const NUMBER = /^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?Inf|NaN)$/i;

interface Family {
  help: string;
  type: string;
  readonly samples: string[];
}

/** Metrics of several sources, each family once, as the format asks for it. */
export class MetricsMerger {
  readonly #families = new Map<string, Family>();

  /**
   * Takes the well-formed samples of a text whose names begin with one of `prefixes` (all when there are none), and gives
   * each the labels. Everything else is left out.
   */
  add(text: string, labels: Readonly<Record<string, string>>, prefixes: readonly string[] = []): void {
    const own = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
    for (const line of text.split("\n")) {
      const name = COMMENT.exec(line)?.[2] ?? SAMPLE.exec(line)?.[1];
      if (name === undefined) continue;
      if (prefixes.length > 0 && !prefixes.some((prefix) => name.startsWith(prefix))) continue;
      if (line.startsWith("#")) this.#describe(line);
      else this.#sample(line, own, Object.keys(labels));
    }
  }

  format(): string {
    return [...this.#families]
      .filter(([, { samples }]) => samples.length > 0)
      .map(([name, { help, type, samples }]) =>
        [
          ...(help === "" ? [] : [`# HELP ${name} ${help}`]),
          ...(type === "" ? [] : [`# TYPE ${name} ${type}`]),
          ...samples,
          "",
        ].join("\n"),
      )
      .join("");
  }

  #describe(line: string): void {
    const [, kind, name = "", rest = ""] = COMMENT.exec(line) ?? [];
    const family = this.#family(name);
    if (kind === "HELP") family.help ||= rest;
    else if (/^(counter|gauge|histogram|summary|untyped)$/.test(rest)) family.type ||= rest;
  }

  #sample(line: string, own: readonly string[], reserved: readonly string[]): void {
    const [, name = "", given = "", value = ""] = SAMPLE.exec(line) ?? [];
    // A label twice would make a reader refuse all of the text.
    if (!NUMBER.test(value) || labelNames(given).some((label) => reserved.includes(label))) return;
    const labels = [...own, ...(given === "" ? [] : [given.replace(/,$/, "")])];
    this.#family(name).samples.push(`${name}${labels.length > 0 ? `{${labels.join(",")}}` : ""} ${value}`);
  }

  #family(name: string): Family {
    const known = this.#families.get(name);
    if (known) return known;
    const family = { help: "", type: "", samples: [] };
    this.#families.set(name, family);
    return family;
  }
}

function labelNames(text: string): string[] {
  return [...text.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\\n]|\\.)*"/g)].map(([, name = ""]) => name);
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
