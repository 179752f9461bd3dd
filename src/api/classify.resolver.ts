import { Inject } from '@nestjs/common';
import { Args, Context, Query, Resolver } from '@nestjs/graphql';
import type { FastifyReply } from 'fastify';
import { badInput } from '../common/errors.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { inSpan, traceOf } from '../common/tracing/tracing.js';
import { Config } from '../config/config.js';
import { tokensOf } from '../inference/cost.js';
import { InferenceEngine } from '../inference/engine.js';
import { whileAwaited } from '../inference/infer.js';
import { countPredictions } from '../inference/prediction-metrics.js';
import { ActivationService } from '../registry/activation.js';
import type { Item, ServingPolicy } from '../task/types.js';
import { hangUpOf } from './hang-up.js';
import { checkCount } from './limits.js';
import { predictionView, withoutNulls } from './views.js';
import { Work, type WorkContext } from './work.js';

interface ClassifyOptions {
  members?: boolean | null;
  deadlineMs?: number | null;
  policy?: string | null;
}

type TextInput = Item & { id?: string | null };

@Resolver()
export class ClassifyResolver {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
    @Inject(Work) private readonly work: Work,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {}

  /** An Error among the answers becomes the error at its path. */
  @Query('classify')
  async classify(
    @Args('task') task: string,
    @Args('inputs') inputs: TextInput[],
    @Args('options') options: ClassifyOptions | null | undefined,
    @Context() context: WorkContext & { reply: FastifyReply },
  ) {
    checkCount('inputs', inputs, this.config.textsPerRequest);
    const { headers, socket } = context.reply.request;
    const request = { ...readOptions(options ?? {}), signal: hangUpOf(socket) };
    // A model that rests takes seconds to open; for whoever asks next it is open then.
    const opening = this.activation.current(task, inputs[0]?.text);
    const lease = await whileAwaited(request, opening, (unused) => unused.release());
    try {
      const items = inputs.map(readItem);
      await this.work.charge(context, tokensOf(lease.model, items, request.policy));
      const attributes = { 'fewloop.task': task, 'fewloop.texts': items.length };
      const asked = { ...request, items, priority: 'interactive' as const };
      const outcomes = await inSpan('classify', traceOf(headers), { kind: 'server', attributes }, (trace) =>
        this.engine.classify(lease.model, { ...asked, trace }),
      );
      const predictions = outcomes.flatMap((outcome) => (outcome.ok ? [outcome.prediction] : []));
      countPredictions(this.metrics, task, 'api', predictions);
      const members = options?.members ?? false;
      return outcomes.map((o, i) => (o.ok ? predictionView(o.prediction, inputs[i]?.id ?? null, members) : o.error));
    } finally {
      lease.release();
    }
  }
}

function readItem({ text, textPair, choices, fields }: TextInput): Item {
  return withoutNulls<Item>({ text, textPair, choices, fields });
}

function readOptions({ deadlineMs, policy }: ClassifyOptions) {
  if (typeof deadlineMs === 'number' && deadlineMs < 0) throw badInput('options.deadlineMs', 'must not be negative');
  return {
    policy: (policy?.toLowerCase() ?? undefined) as ServingPolicy | undefined,
    deadlineAt: typeof deadlineMs === 'number' ? Date.now() + deadlineMs : undefined,
  };
}
