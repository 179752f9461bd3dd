/**
 * The packages of an image with their licences, as CSV; fails on one that licences.json does not allow.
 *   node licences.mjs npm package-lock.json             what `npm ci --omit=dev` installs, by the lock file
 *   node licences.mjs python pip-licenses.json          what `pip-licenses --format=json` found
 * Node's own modules alone: it runs in an image's build, and in a test without an image.
 */
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const policy = JSON.parse(readFileSync(new URL('licences.json', import.meta.url), 'utf8'));

/** Packages of the lock file that are not for development alone. */
export function npmPackages(lock) {
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== '' && !entry.dev)
    .map(([path, { version, license }]) => ({
      name: path.split('node_modules/').at(-1),
      version,
      licence: license ?? '',
    }));
}

export function pythonPackages(list) {
  return list.map(({ Name, Version, License }) => ({ name: Name, version: Version, licence: License }));
}

/** An SPDX expression; one of ANDs and ORs at once is for a person to read. */
function allows(expression) {
  const known = (licence) => policy.allowed.includes(policy.spellings[licence] ?? licence);
  const parts = expression.replace(/^\((.*)\)$/u, '$1');
  if (parts.includes('(') && policy.spellings[parts] === undefined) return false;
  if (parts.includes(' OR ') && parts.includes(' AND ')) return false;
  return parts.includes(' OR ') ? parts.split(' OR ').some(known) : parts.split(' AND ').every(known);
}

const isException = (name) => Object.keys(policy.exceptions).some((pattern) => new RegExp(pattern, 'u').test(name));

export function refused(packages) {
  return packages.filter(({ name, licence }) => !isException(name) && !allows(licence));
}

function main([kind, file]) {
  const parsed = JSON.parse(readFileSync(file, 'utf8'));
  const packages = kind === 'npm' ? npmPackages(parsed) : pythonPackages(parsed);
  const lines = packages.map(({ name, version, licence }) => `${name},${version},"${licence}"`);
  process.stdout.write(`${['package,version,licence', ...new Set(lines.toSorted())].join('\n')}\n`);
  const wrong = refused(packages);
  for (const { name, version, licence } of wrong) {
    process.stderr.write(
      `${name} ${version}: ${licence || 'no licence named'}; docker/licences.json does not allow it\n`,
    );
  }
  process.exitCode = wrong.length === 0 ? 0 : 1;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) main(process.argv.slice(2));
