/** The level of the logs at run time: SIGUSR2 takes it to `debug` and, sent again, back to the configured one. */
import { Logger, PinoLogger } from 'nestjs-pino';

export function switchLevelOnSignal(configured: string, log: Pick<Logger, 'log'>): void {
  process.on('SIGUSR2', () => {
    const { root } = PinoLogger;
    root.level = root.level === 'debug' ? configured : 'debug';
    log.log(`log level: ${root.level}`);
  });
}
