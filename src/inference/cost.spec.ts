import { describe, expect, it } from 'vitest';
import type { TaskDefinition } from '../task/types.js';
import { tokensOf } from './cost.js';

const definition = (policy: string) =>
  ({ labels: [{ name: 'a' }, { name: 'b' }, { name: 'c' }], maxLength: 40, serving: { policy } }) as TaskDefinition;
const model = (policy: string, members: Parameters<typeof tokensOf>[0]['members']) => ({
  task: 'x',
  version: 1,
  definition: definition(policy),
  members,
});
const teacher = { role: 'teacher' } as const;
const student = { role: 'student' } as const;
const text = (length: number) => ({ text: '好'.repeat(length) });

describe('tokens of texts', () => {
  it('are texts × members × tokens, at most as long as the model reads', () => {
    expect(tokensOf(model('ensemble', [teacher, teacher]), [text(12), text(500)])).toBe(2 * 20 + 2 * 40);
  });

  it('are those of the members that the policy asks', () => {
    const members = [teacher, teacher, student];
    const ask = (policy: string) => tokensOf(model(policy, members), [text(2)]);
    expect([ask('student'), ask('ensemble'), ask('cascade')]).toEqual([10, 20, 30]);
    expect(tokensOf(model('student', [teacher]), [text(2)])).toBe(10);
  });

  it('count the pair, each choice and each hypothesis', () => {
    expect(tokensOf(model('ensemble', [teacher]), [{ ...text(2), textPair: '好好好' }])).toBe(13);
    expect(tokensOf(model('ensemble', [teacher]), [{ ...text(2), choices: ['一', '二二', '三'] }])).toBe(3 * 12);
    const hypotheses = { ...teacher, hypotheses: {} as never };
    expect(tokensOf(model('ensemble', [hypotheses]), [text(2)])).toBe(4 * 10);
    expect(tokensOf(model('ensemble', [{ ...hypotheses, shortlist: { size: 2 } }]), [text(2)])).toBe(3 * 10);
  });
});
