import { createRequire } from 'node:module';

/** Of an installed package, by its own package.json. Does not load it. */
export function packageVersion(name: string): string {
  return (createRequire(import.meta.url)(`${name}/package.json`) as { version: string }).version;
}
