import { expect, it, vi } from 'vitest';
import { FewloopError } from '../../common/errors.js';
import { Patience } from './patience.js';

const missing = new FewloopError('NO_ACTIVE_MODEL', 'none');

it('is over when no model was there for so long, and begins anew once there is one', () => {
  const now = vi.spyOn(performance, 'now').mockReturnValue(1000);
  const patience = new Patience(500);
  patience.failed('a', missing);
  now.mockReturnValue(1499);
  patience.failed('a', missing);
  expect(patience.isOver('a')).toBe(false);
  now.mockReturnValue(1500);
  expect([patience.isOver('a'), patience.isOver('b')]).toEqual([true, false]);
  patience.scored('a');
  expect(patience.isOver('a')).toBe(false);
});

it('does not end for what is not the want of a model, nor where it is set to last', () => {
  const now = vi.spyOn(performance, 'now').mockReturnValue(0);
  const [short, endless] = [new Patience(1), new Patience(0)];
  short.failed('a', new FewloopError('NO_ACTIVE_MODEL', 'the bundle is not here', { cause: new Error('ENOENT') }));
  short.failed('a', new FewloopError('OVERLOADED', 'full'));
  short.failed('a', new Error('the database is away'));
  endless.failed('a', missing);
  now.mockReturnValue(1e9);
  expect([short.isOver('a'), endless.isOver('a')]).toEqual([false, false]);
});
