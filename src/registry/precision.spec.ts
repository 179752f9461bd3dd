import { describe, expect, it } from 'vitest';
import { FewloopError } from '../common/errors.js';
import type { Precision } from '../task/types.js';
import type { Bundle } from './bundle.js';
import { openInPrecision } from './precision.js';
import type { OpenModel } from './served-model.js';

/** A version with graphs in these precisions, on a machine where `failing` ones fail and `rates` are measured. */
async function opened({
  has = ['fp32', 'int8'] as Precision[],
  wanted = 'auto' as 'auto' | Precision,
  device = 'cpu',
  failing = [] as Precision[],
  error = new FewloopError('BUNDLE_INVALID', 'a probability differs'),
  known = {} as Partial<Record<Precision, number>>,
  measured = {} as Partial<Record<Precision, number>>,
  base = false,
}) {
  const rates = { ...known };
  const log: string[] = [];
  const bundle = {
    manifest: {
      task: 't',
      version: 2,
      graphs: [{ base }],
      precisions: [{ precision: 'int8', admitted: false, reason: 'agrees on 98 %' }],
    },
    precisions: new Map(has.map((precision) => [precision, []])),
  } as unknown as Bundle;
  const open = async (precision: Precision) => {
    log.push(precision);
    if (failing.includes(precision)) throw error;
    if (measured[precision]) rates[precision] = measured[precision];
    return { precision, release: async () => void log.push(`${precision} released`) } as unknown as OpenModel;
  };
  const rateOf = async (precision: Precision) => rates[precision];
  const { precision } = await openInPrecision(bundle, { precision: wanted, device }, { open, rateOf });
  return { precision, log };
}

describe('openInPrecision', () => {
  it.each<[string, Parameters<typeof opened>[0], Precision]>([
    ['int8 on a CPU', {}, 'int8'],
    ['not fp16 on a CPU', { has: ['fp32', 'fp16'] }, 'fp32'],
    ['fp16 on a GPU', { has: ['fp32', 'fp16', 'int8'], device: 'cuda:0' }, 'fp16'],
    ['not int8 on a GPU', { device: 'cuda:0' }, 'fp32'],
    ['fp32 where there is nothing else', { has: ['fp32'] }, 'fp32'],
    ['what is asked for', { wanted: 'fp32' }, 'fp32'],
    ['what is asked for, slow as it may be', { has: ['fp32', 'fp16'], wanted: 'fp16' }, 'fp16'],
    ["the base model's graph in fp32, whatever is asked for", { base: true, wanted: 'int8' }, 'fp32'],
    ['what has been measured faster', { known: { int8: 100, fp32: 200 } }, 'fp32'],
    ['the usual one where the difference is weather', { known: { int8: 100, fp32: 110 } }, 'int8'],
  ])('takes %s', async (_name, world, expected) => {
    const { precision, log } = await opened(world);
    expect(precision).toBe(expected);
    expect(log).toEqual([expected]);
  });

  it('falls back where the golden texts of an admitted precision fail here', async () => {
    expect(await opened({ failing: ['int8'] })).toEqual({ precision: 'fp32', log: ['int8', 'fp32'] });
  });

  it('goes back to what opening has shown to be faster', async () => {
    const { precision, log } = await opened({ known: { fp32: 300 }, measured: { int8: 100 } });
    expect(precision).toBe('fp32');
    expect(log).toEqual(['int8', 'int8 released', 'fp32']);
  });

  it.each<[string, Parameters<typeof opened>[0], string]>([
    ['a precision that was refused', { has: ['fp32'], wanted: 'int8' }, 'agrees on 98 %'],
    ['a precision that nobody made', { has: ['fp32'], wanted: 'fp16' }, 'FEWLOOP_PRECISION=fp16'],
    ['one that fails here', { wanted: 'int8', failing: ['int8'] }, 'a probability differs'],
    ['fp32 that fails here', { failing: ['int8', 'fp32'] }, 'a probability differs'],
    [
      'a fault that is not the graphs’',
      { failing: ['int8'], error: new FewloopError('OVERLOADED', 'no room') },
      'no room',
    ],
  ])('throws on %s', async (_name, world, message) => {
    await expect(opened(world)).rejects.toThrow(message);
  });
});
