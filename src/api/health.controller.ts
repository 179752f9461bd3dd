import { Controller, Get, Inject, Logger, ServiceUnavailableException } from '@nestjs/common';
import { TaskService } from '../learning/task-service.js';
import { ConvergenceService } from '../registry/convergence.js';

@Controller('health')
export class HealthController {
  private readonly log = new Logger(HealthController.name);
  private modelsReady = false;

  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(ConvergenceService) private readonly convergence: ConvergenceService,
  ) {}

  /** The process runs. */
  @Get('live')
  live() {
    return { status: 'live' };
  }

  /** The database answers and every task's active version has been opened once. */
  @Get('ready')
  async ready() {
    const database = await this.tasks.list().then(
      () => true,
      (error: unknown) => this.log.warn(`the database does not answer: ${String(error)}`) ?? false,
    );
    void this.convergence.ready().then(() => (this.modelsReady = true));
    await new Promise((resolve) => setImmediate(resolve));
    const parts = { database, models: this.modelsReady };
    if (!database || !this.modelsReady) throw new ServiceUnavailableException({ status: 'not ready', ...parts });
    return { status: 'ready', ...parts };
  }
}
