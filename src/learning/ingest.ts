/**
 * Unlabelled texts on their way into the embedded stream. What this answers as accepted is in the database: the stream
 * worker scores it, whatever ends in between. Idempotent by the producer's id, or by the item where it gave none.
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import { Config } from '../config/config.js';
import { Notifications } from '../storage/notifications.js';
import { StreamItemsRepository, type NewStreamItem } from '../storage/stream-items.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { keyedItem, takeEach, type ItemInput, type Refusal } from './intake.js';
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

const MAX_ID_LENGTH = 512;

@Injectable()
export class IngestService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {}

  /** Throws TASK_NOT_FOUND. */
  async ingest(task: string, inputs: IngestInput[]): Promise<IngestResult> {
    const definition = (await this.tasks.get(task)).definition as TaskDefinition;
    const { taken, refused } = takeEach(inputs, (input): NewStreamItem => {
      const keyed = keyedItem(definition, input, this.config);
      return { ...keyed, externalId: checkedId(input.id) ?? keyed.itemKey, metadata: null };
    });
    const accepted = taken.length === 0 ? 0 : await this.items.insert(task, taken);
    // Should the notification be lost, the worker finds them by polling.
    if (accepted > 0) await this.notifications.notify('fewloop_ingest', task);
    return { accepted, duplicates: taken.length - accepted, rejected: refused };
  }

  async stats(task: string): Promise<StreamStats> {
    const counts = await this.items.countByState(task);
    return { pending: counts.PENDING, scored: counts.SCORED, failed: counts.FAILED };
  }
}

function checkedId(id: unknown): string | null {
  if (id === undefined || id === null) return null;
  if (typeof id !== 'string' || id === '') throw badInput('id', 'must be a string that is not empty');
  if (id.length > MAX_ID_LENGTH) throw badInput('id', `is longer than ${MAX_ID_LENGTH} characters`);
  if (!id.isWellFormed() || id.includes('\0')) throw badInput('id', 'holds a character that cannot be stored');
  return id;
}
