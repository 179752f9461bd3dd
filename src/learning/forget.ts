/**
 * Erases a text, and what differs from it in case and spaces alone, everywhere: stream, pool, examples, the data of runs,
 * what processes keep of recent answers. Bundles hold no text of a user: golden texts are made ones, reports name rows by
 * key. The ledger keeps the text's digest, so that it can be shown that it was erased, and nothing else of it; by that
 * entry every data folder with runs finds what it has to erase (run-erasure.ts). What Kafka's topics hold is theirs to keep
 * or delete.
 */
import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { Subject } from 'rxjs';
import { badInput } from '../common/errors.js';
import { AnswerTap } from '../inference/answer-tap.js';
import { InferenceEngine } from '../inference/engine.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { Notifications } from '../storage/notifications.js';
import { StreamItemsRepository } from '../storage/stream-items.repository.js';
import { StreamRecordsRepository } from '../storage/stream-records.repository.js';
import { Transactions } from '../storage/transactions.js';
import { splitGroup } from '../task/keys.js';
import { LedgerService } from './ledger.js';
import { FORGOTTEN_CHANNEL, RunErasure } from './run-erasure.js';
import { UUID } from './runs.js';
import { TaskService } from './task-service.js';

interface Erased {
  streamItems: number;
  candidates: number;
  examples: number;
  /** Of the runs that this process keeps. */
  runRows: number;
}

export interface Forgotten extends Erased {
  /** SHA-256 of the normalised text; of several that had one id, of the newest. */
  digest: string;
  /** Data folders of other processes whose runs may hold it still: they erase it as soon as they hear of it. */
  pendingFolders: number;
}

const DIGEST = /^[0-9a-f]{64}$/u;

/** One of them. */
interface Named {
  text?: string | null;
  id?: string | null;
  digest?: string | null;
}

@Injectable()
export class ForgetService implements OnApplicationBootstrap {
  /** Tasks of which a text was forgotten, here or in another process: who keeps some of theirs lets them go. */
  readonly forgotten$ = new Subject<string>();

  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(StreamRecordsRepository) private readonly records: StreamRecordsRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
    @Inject(AnswerTap) private readonly tap: AnswerTap,
    @Inject(RunErasure) private readonly erasure: RunErasure,
  ) {}

  onApplicationBootstrap(): void {
    this.notifications.on(FORGOTTEN_CHANNEL, (task) => this.letGo(task));
  }

  /**
   * `id`: a candidate's, or the producer's, who may have given it to several texts: all of them are erased, each with an
   * entry of the ledger. `digest`: of an earlier entry, whose text a backup brought back. Throws TASK_NOT_FOUND; BAD_INPUT
   * where nothing is named or known.
   */
  async forget(task: string, what: Named, by: string): Promise<Forgotten> {
    await this.tasks.get(task);
    const digests = await this.digestsOf(task, what);
    const each: Erased[] = [];
    for (const digest of digests) each.push(await this.erase(task, digest, by));
    this.letGo(task);
    // A run may have read the text before and written it meanwhile.
    if (this.erasure.hasRuns) await this.erasure.catchUp();
    const sum = (name: keyof Erased) => each.reduce((total, erased) => total + erased[name], 0);
    return {
      digest: digests[0]!,
      streamItems: sum('streamItems'),
      candidates: sum('candidates'),
      examples: sum('examples'),
      runRows: sum('runRows'),
      pendingFolders: await this.erasure.pending(),
    };
  }

  /** Data folders whose runs may hold a text that was forgotten. */
  pending(): Promise<number> {
    return this.erasure.pending();
  }

  private async erase(task: string, digest: string, by: string): Promise<Erased> {
    const runRows = await this.erasure.erase(task, digest);
    return this.transactions.run(async (tx) => {
      // The embedded stream first: it waits for a batch that holds the text, whose candidate is then there to be erased.
      const embedded = await this.items.deleteGroup(task, digest, tx);
      // Who is about to admit the text has done so, or finds in the ledger that it may not (pool.ts, stream-history.ts).
      await this.candidates.lockPool(task, tx);
      const streamItems = embedded + (await this.records.deleteGroup(task, digest, tx));
      const candidates = await this.candidates.deleteGroup(task, digest, tx);
      const examples = await this.examples.deleteGroup(task, digest, tx);
      const counts = { streamItems, candidates, examples, runRows };
      await this.ledger.append(tx, task, 'forgotten', { digest, by, ...counts });
      await tx.query('SELECT pg_notify($1, $2)', [FORGOTTEN_CHANNEL, task]);
      return counts;
    });
  }

  /** Recent answers are not known by their texts: where one is forgotten, in any process, all are. */
  private letGo(task: string): void {
    this.engine.forgetRecent();
    this.tap.forget(task);
    this.forgotten$.next(task);
  }

  private async digestsOf(task: string, { text, id, digest }: Named): Promise<string[]> {
    if (typeof text === 'string') return [splitGroup(text)];
    if (typeof digest === 'string') {
      if (!DIGEST.test(digest)) throw badInput('digest', 'must be a SHA-256, 64 digits of lower-case hex');
      return [digest];
    }
    if (typeof id !== 'string') throw badInput('text', 'a text, an id or a digest is needed');
    const candidate = UUID.test(id) ? await this.candidates.find(id) : null;
    const own = candidate?.task === task ? candidate : await this.items.findByExternalId(task, id);
    const groups = new Set([...(own ? [own.splitGroup] : []), ...(await this.records.groupsOf(task, id))]);
    if (groups.size === 0) throw badInput('id', `task ${task} knows no text by that id`);
    return [...groups];
  }
}
