/**
 * Erases a text, and what differs from it in case and spaces alone, everywhere: stream, pool, examples, and the data of
 * runs, recent answers. Bundles hold no text of a user: golden texts are made ones, reports name rows by key. The ledger keeps the
 * text's digest, so that it can be shown that it was erased, and nothing else of it. What Kafka's topics hold is theirs
 * to keep or delete.
 */
import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { badInput } from '../common/errors.js';
import { Config } from '../config/config.js';
import { InferenceEngine } from '../inference/engine.js';
import { LABELLED_FILE, UNLABELLED_FILE } from '../launch/run-folder.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { Notifications } from '../storage/notifications.js';
import { StreamItemsRepository } from '../storage/stream-items.repository.js';
import { StreamRecordsRepository } from '../storage/stream-records.repository.js';
import { Transactions } from '../storage/transactions.js';
import { splitGroup } from '../task/keys.js';
import { LedgerService } from './ledger.js';
import { UUID } from './runs.js';
import { TaskService } from './task-service.js';

export interface Forgotten {
  /** SHA-256 of the normalised text. */
  digest: string;
  streamItems: number;
  candidates: number;
  examples: number;
  runRows: number;
}

const CHANNEL = 'fewloop_forgotten';

@Injectable()
export class ForgetService implements OnApplicationBootstrap {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(StreamRecordsRepository) private readonly records: StreamRecordsRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** Recent answers are not known by their texts: where one is forgotten, in any process, all are. */
  onApplicationBootstrap(): void {
    this.notifications.on(CHANNEL, () => this.engine.forgetRecent());
  }

  /** `id`: a candidate's, or the producer's. Throws TASK_NOT_FOUND; BAD_INPUT where nothing is named or known. */
  async forget(task: string, what: { text?: string | null; id?: string | null }, by: string): Promise<Forgotten> {
    await this.tasks.get(task);
    const digest = await this.digestOf(task, what);
    const runRows = await this.eraseFromRuns(task, digest);
    return this.transactions.run(async (tx) => {
      // The stream first: it waits for a batch that holds the text, whose candidate is then there to be erased.
      const embedded = await this.items.deleteGroup(task, digest, tx);
      const streamItems = embedded + (await this.records.deleteGroup(task, digest, tx));
      const candidates = await this.candidates.deleteGroup(task, digest, tx);
      const examples = await this.examples.deleteGroup(task, digest, tx);
      const counts = { streamItems, candidates, examples, runRows };
      await this.ledger.append(tx, task, 'forgotten', { digest, by, ...counts });
      await tx.query('SELECT pg_notify($1, $2)', [CHANNEL, task]);
      return { digest, ...counts };
    });
  }

  private async digestOf(task: string, { text, id }: { text?: string | null; id?: string | null }): Promise<string> {
    if (typeof text === 'string') return splitGroup(text);
    if (typeof id !== 'string') throw badInput('text', 'a text or an id is needed');
    const candidate = UUID.test(id) ? await this.candidates.find(id) : null;
    const known = candidate?.task === task ? candidate : await this.itemNamed(task, id);
    if (!known) throw badInput('id', `task ${task} knows no text by that id`);
    return known.splitGroup;
  }

  private async itemNamed(task: string, id: string): Promise<{ splitGroup: string } | null> {
    const embedded = await this.items.findByExternalId(task, id);
    const splitGroup = embedded?.splitGroup ?? (await this.records.findByExternalId(task, id))?.splitGroup;
    return splitGroup ? { splitGroup } : null;
  }

  /** A run that reads its folder right now has the text in memory until it ends; none that starts later sees it. */
  private async eraseFromRuns(task: string, group: string): Promise<number> {
    const parent = join(this.config.dataDir, 'runs', task);
    let erased = 0;
    for (const run of await readdir(parent).catch(() => [])) {
      for (const name of [LABELLED_FILE, UNLABELLED_FILE]) {
        const file = join(parent, run, name);
        const content = await readFile(file, 'utf8').catch(() => null);
        if (!content?.includes(group)) continue;
        const lines = content.split('\n');
        const kept = lines.filter((line) => !line.includes(`"${group}"`));
        erased += lines.length - kept.length;
        await writeFile(`${file}.partial`, kept.join('\n'));
        await rename(`${file}.partial`, file);
      }
    }
    return erased;
  }
}
