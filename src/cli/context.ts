/** What every command gets: the service, and how to print. */
import { InvalidArgumentError, type Command } from 'commander';
import { readFileSync } from 'node:fs';
import { Client, Failure } from './client.js';

export interface Context {
  client: Client;
  json: boolean;
}

interface GlobalOptions {
  url: string;
  token?: string;
  tokenFile?: string;
  json?: boolean;
}

export function contextOf(command: Command): Context {
  const { url, token, tokenFile, json } = command.optsWithGlobals<GlobalOptions>();
  const named = (option: string) => command.getOptionValueSourceWithGlobals(option) === 'cli';
  // What the command line names goes before the environment; of two in one place, the key before its file. Empty is
  // not set, as for the service's variables.
  const byFile = tokenFile && (!token || (named('tokenFile') && !named('token')));
  const key = byFile ? readText(tokenFile).trim() : token;
  return { client: new Client(url, key), json: json ?? false };
}

/** The file's text, without a byte-order mark. */
export function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new Failure(`cannot read ${file}: ${(error as Error).message}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Failure(`${file} is not UTF-8`);
  }
}

/** For options that are a number above 0. */
export function above0(value: string): number {
  const parsed = Number(value);
  if (!(parsed > 0)) throw new InvalidArgumentError('It must be a number above 0.');
  return parsed;
}

/** For options that take one of a few names. */
export function oneOf<T extends string>(names: readonly T[]): (value: string) => T {
  return (value) => {
    const found = names.find((name) => name === value);
    if (found === undefined) throw new InvalidArgumentError(`Allowed are ${names.join(', ')}.`);
    return found;
  };
}

/** For options that say how many. */
export function count(value: string): number {
  if (!/^[1-9]\d{0,2}$/u.test(value)) throw new InvalidArgumentError('A number from 1 to 999.');
  return Number(value);
}
