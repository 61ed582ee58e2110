/** `bun src/config/write-default.ts`: writes the defaults of the schema to default.json, so that no start needs the schema for them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { camelKeys } from "./config.ts";
import { schema } from "./schema.ts";

export function defaultText(): string {
  return `${JSON.stringify(camelKeys(v.parse(schema, {})), null, 2)}\n`;
}

if (import.meta.main) writeFileSync(join(import.meta.dir, "default.json"), defaultText());
