/**
 * For whoever keeps the process running: `live` restarts it, `started` gives it time to open its models, `ready` sends
 * it requests. The last two name every part.
 */
import { Controller, Get, Inject, ServiceUnavailableException } from '@nestjs/common';
import { Health, type PartReport } from '../common/health.js';

interface Report {
  status: string;
  parts: Record<string, PartReport>;
}

@Controller('health')
export class HealthController {
  private wasReady = false;

  constructor(@Inject(Health) private readonly health: Health) {}

  /** The process runs. */
  @Get('live')
  live() {
    return { status: 'live' };
  }

  /** It has been ready once. */
  @Get('started')
  async started(): Promise<Report> {
    const { ready, parts } = await this.look();
    return answer(this.wasReady || ready, 'started', parts);
  }

  /** All that is required to answer requests is in order. */
  @Get('ready')
  async ready(): Promise<Report> {
    const { ready, parts } = await this.look();
    return answer(ready, 'ready', parts);
  }

  private async look(): Promise<{ ready: boolean; parts: Record<string, PartReport> }> {
    const parts = await this.health.report();
    const ready = Object.values(parts).every(({ ok, required }) => ok || !required);
    this.wasReady ||= ready;
    return { ready, parts };
  }
}

function answer(ok: boolean, status: string, parts: Report['parts']): Report {
  if (!ok) throw new ServiceUnavailableException({ status: `not ${status}`, parts });
  return { status, parts };
}
