/** Dashboard, alerts, runbook and the table of metrics speak of the metrics that there are. */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DESCRIPTIONS, metricsTable, type Description } from '../../src/common/metrics/descriptions.js';
import { alerts, expressions, hasPromtool, OPERATIONS, promtool } from '../fixtures/operations.js';

const file = (name: string) => resolve(OPERATIONS, name);
const read = (name: string) => readFileSync(file(name), 'utf8');
const descriptions: Record<string, Description> = DESCRIPTIONS;

it('the table is of the code (UPDATE_METRICS=1 writes it)', () => {
  const marked = /<!-- metrics -->\n(.*?)\n?<!-- \/metrics -->/su;
  if (process.env['UPDATE_METRICS']) {
    const text = read('metrics.md').replace(marked, () => `<!-- metrics -->\n${metricsTable()}\n<!-- /metrics -->`);
    writeFileSync(file('metrics.md'), text);
  }
  expect(marked.exec(read('metrics.md'))?.[1]).toBe(metricsTable());
});

/** Names of Fewloop's metrics in an expression, with the labels that each is matched by. */
function usesIn(expression: string): { name: string; labels: string[] }[] {
  return [...expression.matchAll(/\b(fewloop_\w+)(?:\{([^}]*)\})?/gu)].map(([, name = '', matchers = '']) => {
    return { name, labels: [...matchers.matchAll(/(\w+)\s*[=!]/gu)].map(([, label = '']) => label) };
  });
}

describe('expressions', () => {
  const uses = expressions().flatMap(usesIn);

  it('ask for metrics and labels that there are', () => {
    const unknown = uses.filter(({ name, labels }) => {
      const histogram = descriptions[name.replace(/_(bucket|sum|count)$/u, '')];
      const description = descriptions[name] ?? (histogram?.kind === 'histogram' ? histogram : undefined);
      return description === undefined || labels.some((label) => !description.labels.includes(label));
    });
    expect(uses.length).toBeGreaterThan(50);
    expect(unknown).toEqual([]);
  });

  it('the dashboard shows every metric of Fewloop', () => {
    const shown = expressions('dashboard').join('\n');
    for (const name of Object.keys(DESCRIPTIONS)) {
      expect(shown).toContain(name);
    }
  });
});

it('the runbook has a section for each alert, and no other', () => {
  const sections = [...read('runbook.md').matchAll(/^## (\w+)$/gmu)].map(([, name]) => name);
  const all = alerts();
  expect(sections).toHaveLength(all.length);
  expect(new Set(sections)).toEqual(new Set(all.map(({ alert }) => alert)));
  for (const { alert, annotations } of all) {
    expect(annotations.runbook).toBe(`docs/operations/runbook.md#${alert.toLowerCase()}`);
  }
});

it.runIf(hasPromtool())('promtool takes the rules, and its tests of them pass', () => {
  expect(promtool(['check', 'rules', 'alerts.yaml'])).toMatchObject({ status: 0 });
  expect(promtool(['test', 'rules', 'alerts.test.yaml'])).toMatchObject({ status: 0 });
});
