import { open, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Replaces a file atomically; the new content is on disk when this resolves. One call at a time for each file. */
export async function replaceDurably(path: string, text: string): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `.${basename(path)}.new`);
  {
    await using file = await open(temporary, "w", 0o600);
    await file.writeFile(text);
    await file.sync();
  }
  await rename(temporary, path);
  await using opened = await open(directory, "r");
  await opened.sync();
}
