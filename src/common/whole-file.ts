import { rename, writeFile } from 'node:fs/promises';

/** Readers see the old content or the new one, and after a crash one of the two: written aside and renamed. */
export async function writeWhole(file: string, content: string): Promise<void> {
  await writeFile(`${file}.partial`, content);
  await rename(`${file}.partial`, file);
}
