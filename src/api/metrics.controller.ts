import { Controller, ForbiddenException, Get, Inject, Req, Res, UnauthorizedException } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Authenticator } from '../access/authenticator.js';
import { isAtLeast } from '../access/principal.js';
import { FewloopError } from '../common/errors.js';
import { PrometheusMetrics } from '../common/metrics/prometheus.js';

/** For Prometheus, of every role. It tells no text and no id, but the names of all tasks. */
@Controller('metrics')
export class MetricsController {
  constructor(
    @Inject(PrometheusMetrics) private readonly metrics: PrometheusMetrics,
    @Inject(Authenticator) private readonly authenticator: Authenticator,
  ) {}

  @Get()
  async scrape(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.refuseOthers(request.headers.authorization);
    await reply.type(this.metrics.contentType).send(await this.metrics.scrape());
  }

  private async refuseOthers(authorization: string | undefined): Promise<void> {
    const principal = await this.authenticator.authenticate(authorization).catch((error: unknown) => {
      throw error instanceof FewloopError ? new UnauthorizedException(error.message) : error;
    });
    if (isAtLeast(principal.role, 'ENGINEER') && principal.tasks === null) return;
    throw new ForbiddenException('metrics are for a key of role ENGINEER for all tasks');
  }
}
