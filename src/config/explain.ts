import { listSettings, type Setting } from "./catalog.ts";

/** What the schema says of a key, for a terminal. */
export function explainSetting(setting: Setting): string {
  const lines = [setting.key.join("."), "", `  ${setting.meaning}`, ""];
  lines.push(`  expects  ${setting.expects}`, `  default  ${JSON.stringify(setting.fallback)}`);
  if (setting.annotation !== undefined) lines.push(`  pod      ${annotationOf(setting)}`);
  if (setting.allowedBy !== undefined) lines.push(`  allowed  by the patterns of "${setting.allowedBy}"`);
  lines.push(`  effect   ${setting.without === undefined ? "yes" : `none: ${setting.without}`}`);
  return lines.join("\n");
}

/** The keys that a word may mean: a full name, the last part of one, or a table. */
export function findSettings(word: string): readonly Setting[] {
  const all = listSettings();
  const exact = all.filter(({ key }) => key.join(".") === word);
  if (exact.length > 0) return exact;
  const named = all.filter(({ key }) => key.at(-1) === word || key.join(".").endsWith(`.${word}`));
  if (named.length > 0) return oneHypervisor(named);
  return oneHypervisor(all.filter(({ key }) => key.join(".").startsWith(`${word}.`)));
}

/** All monitors have the same keys: those of one of them, by whose name the word did not ask, are enough. */
function oneHypervisor(settings: readonly Setting[]): readonly Setting[] {
  const names = new Set(settings.map(({ key }) => (key[0] === "hypervisor" ? key[1] : undefined)));
  names.delete(undefined);
  if (names.size < 2) return settings;
  return settings.filter(({ key }) => key[0] !== "hypervisor" || key[1] === "qemu");
}

/** A reference of all keys in Markdown. The monitors' tables have the same keys: those of one stand for all. */
export function formatReference(hypervisor = "qemu"): string {
  const tables = new Map<string, Setting[]>();
  for (const setting of listSettings()) {
    if (setting.key[0] === "hypervisor" && setting.key[1] !== hypervisor) continue;
    const table = setting.key.slice(0, -1).join(".");
    tables.set(table, [...(tables.get(table) ?? []), setting]);
  }
  const parts = [...tables].map(([table, settings]) => formatTable(table, settings));
  return ["# Configuration of hako", ...parts].join("\n\n");
}

function formatTable(table: string, settings: readonly Setting[]): string {
  const rows = settings.map((setting) => {
    const effect = setting.without === undefined ? "" : ` *No effect: ${setting.without}.*`;
    const pod = setting.annotation === undefined ? "" : " Pods: yes.";
    const cells = [
      `\`${setting.key.at(-1)}\``,
      setting.expects,
      `\`${JSON.stringify(setting.fallback)}\``,
      `${setting.meaning}${effect}${pod}`,
    ];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return [`## [${table}]`, "", "| key | expects | default | meaning |", "|---|---|---|---|", ...rows].join(
    "\n",
  );
}

function annotationOf({ key, annotation }: Setting): string {
  const last = annotation === true ? key.at(-1) : annotation;
  return `io.katacontainers.config.${key[0]}.${last}`;
}
