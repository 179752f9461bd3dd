/**
 * Unlabelled texts on their way into the stream. What this answers as accepted is kept, in the database or in Kafka: the
 * stream worker scores it, whatever ends in between. The embedded stream takes an id (the item key where the producer
 * gave none) once; Kafka takes what it is given.
 */
import { Inject, Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import { tokensOf } from '../inference/cost.js';
import { ActivationService } from '../registry/activation.js';
import { Catalogue } from '../registry/catalogue.js';
import type { BundleManifest } from '../registry/manifest.js';
import { StreamItemsRepository } from '../storage/stream-items.repository.js';
import { StreamRecordsRepository } from '../storage/stream-records.repository.js';
import { withRoutingOf } from '../task/answering.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { checkedId, keyedItem, takeEach, type ItemInput, type Refusal } from './intake.js';
import { TEXT_SINK, type IncomingText, type TextSink } from './stream-ports.js';
import { TaskService } from './task-service.js';

export interface IngestInput extends ItemInput {
  id?: string | null;
}

export interface IngestResult {
  accepted: number;
  duplicates: number;
  rejected: Refusal[];
}

export interface StreamStats {
  pending: number;
  scored: number;
  failed: number;
}

@Injectable()
export class IngestService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(StreamRecordsRepository) private readonly records: StreamRecordsRepository,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(ActivationService) private readonly activation: Pick<ActivationService, 'peek'>,
    @Inject(TEXT_SINK) private readonly sink: TextSink,
  ) {}

  /**
   * What scoring them will ask of the version that is active now, as `classify` of them would; of one member where none
   * is. Throws TASK_NOT_FOUND.
   */
  async tokensOf(task: string, inputs: IngestInput[]): Promise<number> {
    const open = this.activation.peek(task);
    if (open) {
      open.release();
      return tokensOf(open.model, inputs as Item[]);
    }
    const row = await this.tasks.get(task);
    const now = row.definition as TaskDefinition;
    const version = row.activeVersion === null ? null : await this.catalogue.find(task, row.activeVersion);
    const one = { task, version: 0, definition: now, members: [{ role: 'teacher' as const }] };
    const manifest = version?.manifest as BundleManifest | undefined;
    const model = manifest ? { ...manifest, definition: withRoutingOf(manifest.definition, now) } : one;
    return tokensOf(model, inputs as Item[]);
  }

  /** Throws TASK_NOT_FOUND, OVERLOADED. */
  async ingest(task: string, inputs: IngestInput[]): Promise<IngestResult> {
    const definition = (await this.tasks.get(task)).definition as TaskDefinition;
    const { taken, refused } = takeEach(inputs, (input): IncomingText => {
      const item = keyedItem(definition, input, this.config);
      return { id: checkedId(input.id) ?? item.itemKey, item };
    });
    const accepted = taken.length === 0 ? 0 : await this.sink.send(definition, taken);
    return { accepted, duplicates: taken.length - accepted, rejected: refused };
  }

  /** Throws TASK_NOT_FOUND, OVERLOADED. */
  async stats(task: string): Promise<StreamStats> {
    const definition = (await this.tasks.get(task)).definition as TaskDefinition;
    const [pending, embedded, kafka] = await Promise.all([
      this.sink.pending(definition),
      this.items.countDone(task),
      this.records.countByState(task),
    ]);
    return { pending, scored: embedded.SCORED + kafka.SCORED, failed: embedded.FAILED + kafka.FAILED };
  }
}
