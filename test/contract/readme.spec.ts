/** What the README says of the environment, the commands and the examples is the code's own. */
import type { Command } from 'commander';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../../src/cli/program.js';
import { environmentTable } from '../../src/config/environment.js';
import { parseTask } from '../../src/task/definition.js';

const read = (file: string) => readFileSync(resolve(import.meta.dirname, '../..', file), 'utf8');
const readme = read('README.md');

function marked(name: string): string {
  return new RegExp(`<!-- ${name} -->\n(.*?)\n<!-- /${name} -->`, 'su').exec(readme)?.[1] ?? '';
}

it('shows the environment as the configuration describes it', () => {
  expect(marked('environment')).toBe(environmentTable().trimEnd());
});

describe('commands', () => {
  /** By their whole names: `task apply`. */
  const existing = new Map(leaves(createProgram(), ''));
  const documented = marked('commands')
    .split('\n')
    .slice(2)
    .flatMap((row) => [...(row.split(/(?<!\\)\|/u)[1] ?? '').matchAll(/`([^`]+)`/gu)])
    .map(([, usage = '']) => ({
      usage,
      name: /^[a-z]+( [a-z]+(-[a-z]+)*)*/u.exec(usage)?.[0] ?? usage,
      args: usage.match(/(?<!-)\b[A-Z_]+\b/gu) ?? [],
      options: usage.match(/--[a-z]+/gu) ?? [],
    }));

  it('are all there, and no other', () => {
    expect(documented.map(({ name }) => name).sort()).toEqual([...existing.keys()].sort());
  });

  it.each(documented)('$usage', ({ name, args, options }) => {
    const command = existing.get(name);
    expect(command?.registeredArguments.map((argument) => argument.name().toUpperCase())).toEqual(args);
    expect(command?.options.map(({ long }) => long)).toEqual(expect.arrayContaining(options));
    const mandatory = command?.options.filter((option) => option.mandatory).map(({ long }) => long);
    expect(options).toEqual(expect.arrayContaining(mandatory ?? []));
  });
});

it("the tour's task is the example but for how it learns", () => {
  const [example, quick] = ['task', 'quick'].map((name) => parseTask(read(`examples/reviews/${name}.yaml`)));
  expect({ ...quick, learning: null }).toEqual({ ...example, learning: null });
});

function leaves(command: Command, prefix: string): [string, Command][] {
  return command.commands.flatMap((child) => {
    const name = `${prefix}${child.name()}`;
    return child.commands.length > 0 ? leaves(child, `${name} `) : [[name, child] satisfies [string, Command]];
  });
}
