import { PinoLogger } from 'nestjs-pino';
import { expect, it, vi } from 'vitest';
import { switchLevelOnSignal } from './level.js';

it('goes to debug and back', () => {
  const { logger } = new PinoLogger({ pinoHttp: { level: 'warn' } });
  const log = vi.fn();
  expect(logger.level).toBe('warn');
  switchLevelOnSignal('warn', { log });
  for (const level of ['debug', 'warn', 'debug']) {
    process.emit('SIGUSR2');
    expect(PinoLogger.root.level).toBe(level);
    expect(log).toHaveBeenLastCalledWith(`log level: ${level}`);
  }
  process.removeAllListeners('SIGUSR2');
});
