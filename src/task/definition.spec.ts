import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { canonicalDefinition, definitionDigest, parseTask } from './definition.js';
import { requireSupported } from './support.js';
import type { TaskDefinition } from './types.js';

const MINIMAL = `
name: reviews
kind: single-label
labels: [{name: good, words: [好]}, {name: bad, words: [差]}]
templates: ["{text}很{mask}"]
`;

function refusal(source: string): FewloopError {
  try {
    parseTask(source);
  } catch (error) {
    if (error instanceof FewloopError) return error;
    throw error;
  }
  throw new Error('was not refused');
}

describe('parseTask', () => {
  it('fills in every default', () => {
    expect(parseTask(MINIMAL)).toMatchObject({
      method: ['pet'],
      efl: { negatives: 3, negativeLabel: null, shortlist: 16 },
      maxLength: 128,
      routing: { accept: 0.85, reviewContested: true, beforeCalibration: 'review' },
      serving: { policy: 'ensemble' },
      pool: { capacity: 200_000, auditRate: 0.01 },
      learning: {
        prior: 'estimated',
        strategies: ['plain', 'r-drop'],
        teachers: 'in-turn',
        seeds: 1,
        selection: { strategy: 'fused', threshold1: 0.9, threshold2: 0.95, threshold3: 0.7, floor: 0.5 },
        trigger: { newLabels: 50, schedule: null, drift: null, cooldownMinutes: 60 },
        rounds: 1,
        student: { templates: 'best', strategies: ['plain'] },
        budgetSeconds: 240,
        promotion: { minVerdict: 'not-worse', margin: 0.01, fourEyes: false, shadowMinutes: 0, canaryPercent: 0 },
      },
      stream: { input: 'fewloop.texts', output: 'fewloop.predictions' },
    });
  });

  it('adapts nothing unless it is asked to, and then with defaults', () => {
    expect(parseTask(MINIMAL).learning).not.toHaveProperty('adaptation');
    expect(parseTask(`${MINIMAL}\nlearning: {adaptation: {tapt: true}}`).learning.adaptation).toEqual({
      tapt: true,
      passes: 3,
      budgetShare: 0.3,
      auxiliary: 0,
    });
    const wrong = refusal(`${MINIMAL}\nlearning: {adaptation: {tpat: true}}`);
    expect(wrong).toMatchObject({ field: 'learning.adaptation.tpat', message: expect.stringContaining('"tapt"') });
  });

  it('reads the same from JSON, from YAML and from its own canonical form', () => {
    const task = parseTask(MINIMAL);
    expect(definitionDigest(parseTask(canonicalDefinition(task)))).toBe(definitionDigest(task));
    expect(parseTask(`\ufeff${JSON.stringify(task)}`)).toEqual(task);
  });

  it.each(['reviews', 'review-topics', 'shop-categories'])('takes examples/%s', (name) => {
    const task = parseTask(readFileSync(`examples/${name}/task.yaml`, 'utf8'));
    expect(() => requireSupported(task)).not.toThrow();
  });

  it.each([
    ['a typo in a key', MINIMAL.replace('templates', 'tempaltes'), 'tempaltes', 'did you mean "templates"'],
    ['a typo deep inside', `${MINIMAL}routing: {acept: 0.9}`, 'routing.acept', 'did you mean "accept"'],
    ['a strange key', `${MINIMAL}zzzzzzz: 1`, 'zzzzzzz', 'known here: name, kind'],
    ['a missing name', MINIMAL.replace('name: reviews', ''), 'name', 'is missing'],
    ['a bad name', MINIMAL.replace('reviews', 'Réviews'), 'name', 'lower-case'],
    ['a bad kind', MINIMAL.replace('single-label', 'single'), 'kind', ''],
    ['a number out of range', `${MINIMAL}routing: {accept: 85}`, 'routing.accept', ''],
    ['a string for a number', `${MINIMAL}maxLength: long`, 'maxLength', ''],
    ['a label twice', MINIMAL.replace('name: bad', 'name: good'), 'labels.1.name', 'twice'],
    ['a label of no object', MINIMAL.replace('name: bad', 'name: __proto__'), 'labels.1.name', 'cannot be'],
    ['a former name in use', MINIMAL.replace('words: [差]', 'words: [差], was: [good]'), 'labels.1.was.0', 'already'],
    ['no labels', 'name: a\nkind: single-label\ntemplates: ["{text}{mask}"]', 'labels', 'is missing'],
    ['labels for choices', MINIMAL.replace('single-label', 'multiple-choice'), 'labels', 'choices are its labels'],
    [
      'a cron of four fields',
      `${MINIMAL}learning: {trigger: {schedule: "0 3 * *"}}`,
      'learning.trigger.schedule',
      'five',
    ],
    ['a segment end in a template', MINIMAL.replace('{text}', '{text}{sep}'), 'templates.0', '{sep} is not for PET'],
    ['a hypothesis in a template', MINIMAL.replace('{text}', '{hypothesis}'), 'templates.0', '{hypothesis} is not'],
    ['efl without descriptions', `${MINIMAL}method: efl`, 'labels.0.description', 'is missing'],
    ['a random pair without pairs', `${MINIMAL}efl: {negativeLabel: bad}`, 'efl.negativeLabel', 'no pairs'],
    [
      'a random pair of an unknown label',
      `${MINIMAL.replace('single-label', 'sentence-pair')}efl: {negativeLabel: other}`,
      'efl.negativeLabel',
      '"other" is no label',
    ],
    ['a list', '- a\n- b', 'definition', 'mapping'],
    ['nothing', '', 'definition', 'mapping'],
    ['no YAML', 'a: [', 'definition', 'neither YAML nor JSON'],
    ['a lone surrogate', MINIMAL.replace('good', '\ud800'), 'definition', 'surrogate'],
    ['no number', `${MINIMAL}routing: {accept: .nan}`, 'definition', 'NaN'],
    ['no finite number', `${MINIMAL}maxLength: .inf`, 'definition', 'Infinity'],
    ['what holds itself', `${MINIMAL}pool: &pool {capacity: *pool}`, 'definition', 'Circular'],
    ['U+0000', MINIMAL.replace('name: good', 'name: "a\\0b"'), 'definition', 'cannot be stored'],
  ])('refuses %s', (_, source, field, message) => {
    const error = refusal(source);
    expect(error.code).toBe('BAD_INPUT');
    expect(error.field).toBe(field);
    expect(error.message).toContain(message);
  });

  it('needs templates and words for PET alone, descriptions for efl alone', () => {
    const labels = (rest: string) => `name: a\nkind: single-label\nlabels: [{name: x${rest}}, {name: y${rest}}]\n`;
    expect(parseTask(`${labels('')}method: [fine-tune, embedding]`)).toMatchObject({ templates: [] });
    expect(parseTask(`${labels(', description: 好')}method: efl`)).toMatchObject({ method: ['efl'] });
    expect(parseTask(`${labels('')}method: efl`.replace('single-label', 'sentence-pair')).method).toEqual(['efl']);
  });

  it('names every fault at once', () => {
    expect(refusal(`${MINIMAL}maxLength: long\nrouting: {acept: 1}`).message).toMatch(/maxLength.*routing\.acept/su);
  });

  it('takes any string or refuses it with BAD_INPUT', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), (source) => {
        expect(refusal(source).code).toBe('BAD_INPUT');
      }),
    );
  }, 30_000);
});

describe('requireSupported', () => {
  it.each([
    ['method', { kind: 'multiple-choice' as const, method: ['embedding' as const] }],
    ['method', { kind: 'multi-label' as const }],
  ])('refuses by %s', (field, change) => {
    expect(() => requireSupported({ ...parseTask(MINIMAL), ...change })).toThrow(expect.objectContaining({ field }));
  });

  it('refuses to mix the choices of two rows', () => {
    const task = parseTask(
      'name: a\nkind: multiple-choice\ntemplates: ["{text|blank:#x#}"]\nlearning: {strategies: [mixup+r-drop]}',
    );
    expect(() => requireSupported(task)).toThrow(expect.objectContaining({ field: 'learning.strategies' }));
    const others = { ...task.learning, strategies: ['r-drop+fgm', 'plain'] };
    expect(() => requireSupported({ ...task, learning: others })).not.toThrow();
  });

  it("refuses pet's auxiliary loss without pet", () => {
    const task = parseTask(`${MINIMAL}\nlearning: {adaptation: {auxiliary: 0.0001}}`);
    expect(() => requireSupported(task)).not.toThrow();
    expect(() => requireSupported({ ...task, method: ['embedding'] })).toThrow(
      expect.objectContaining({ field: 'learning.adaptation.auxiliary' }),
    );
  });

  it('prints the table', () => {
    const definition: TaskDefinition = { ...parseTask(MINIMAL), kind: 'multi-label', method: ['efl', 'pet'] };
    expect(() => requireSupported(definition)).toThrow(/pet does not go with multi-label.*multiple-choice: pet/u);
  });

  it.each([
    ['single-label', ['pet', 'efl', 'embedding', 'fine-tune']],
    ['multi-label', ['efl', 'embedding', 'fine-tune']],
    ['sentence-pair', ['pet', 'efl', 'embedding', 'fine-tune']],
  ] as const)('takes a committee for %s', (kind, method) => {
    expect(() => requireSupported({ ...parseTask(MINIMAL), kind, method: [...method] })).not.toThrow();
  });
});
