import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { HakoError } from "#base/error.ts";
import type { DataHub } from "#cdh/hub.ts";
import { type HubConfiguration, readConfiguration } from "./configuration.ts";
import { OwnHub } from "./hub.ts";
import { type KeyBroker, MissingKeyBroker, OfflineKeyBroker } from "./key-broker.ts";

/** Opens our own hub as its file says, and writes the credentials that the file lists. */
export async function openOwnHub(
  configFile: string,
  { timeoutMs }: { readonly timeoutMs: number },
): Promise<DataHub> {
  const configuration = readConfiguration(configFile);
  const hub = new OwnHub(configuration, openKeyBroker(configuration), timeoutMs);
  await writeCredentials(hub, configuration);
  return hub;
}

function openKeyBroker({ keyBroker, files }: HubConfiguration): KeyBroker {
  return keyBroker === "offline_fs_kbc" ? new OfflineKeyBroker(files) : new MissingKeyBroker(keyBroker);
}

async function writeCredentials(
  hub: DataHub,
  { credentials, baseDirectory }: HubConfiguration,
): Promise<void> {
  const root = join(baseDirectory, "kbs");
  for (const { path, resourceUri } of credentials) {
    if (resolve(path) !== path || !path.startsWith(`${root}/`)) {
      throw new HakoError("INVALID_ARGUMENT", `Cannot write credential "${path}": it is not below "${root}"`);
    }
    const bytes = await hub.getResource(resourceUri);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(path, bytes, { mode: 0o600 });
    chmodSync(path, 0o600);
  }
}
