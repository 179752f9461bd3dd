/**
 * Erases what was forgotten from the data of runs, in the folder where they are, which may be a volume that the process
 * that was asked to forget does not have: the ledger says what was forgotten, and whoever looks after runs (the roles
 * all and trainer) erases it at its start, when it is told, and each minute. A folder knows how far it got, so that one
 * that was away for long, or comes back from a backup, catches up.
 *
 * A run that read its texts before they were forgotten and writes them afterwards: its folder holds the ledger's entry
 * as of before it read, and erases what was forgotten since once it is whole (`fill`). Whatever is forgotten later finds
 * the folder there.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { writeWhole } from '../common/whole-file.js';
import { Config } from '../config/config.js';
import { ErasuresRepository } from '../storage/erasures.repository.js';
import { Notifications } from '../storage/notifications.js';
import { eraseFromRun, eraseFromRuns } from './run-folders.js';

/** The task's name. */
export const FORGOTTEN_CHANNEL = 'fewloop_forgotten';

const LOOK_MS = 60_000;
/** A folder that nobody has looked after for so long is taken for gone. */
const GONE_MS = 30 * 86_400_000;

interface Mark {
  id: string;
  erasedUpTo: string;
}

@Injectable()
export class RunErasure implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(RunErasure.name);
  #timer: NodeJS.Timeout | undefined;
  /** One change of the folders at a time: two would each bring back what the other erased. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(ErasuresRepository) private readonly erasures: ErasuresRepository,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {}

  onApplicationBootstrap(): void {
    if (!this.hasRuns) return;
    const look = () => void this.catchUp().catch((error: unknown) => this.#log.warn(String(error)));
    this.notifications.on(FORGOTTEN_CHANNEL, look);
    this.#timer = setInterval(look, LOOK_MS);
    look();
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    await this.#last.catch(() => undefined);
  }

  /** Whether this process does runs, and so keeps their data. */
  get hasRuns(): boolean {
    return ['all', 'trainer'].includes(this.config.role);
  }

  /** Erases from all runs here what was forgotten since the last time, and says so. */
  catchUp(): Promise<void> {
    return this.#alone(async () => {
      const mark = await this.#mark();
      const found = await this.erasures.after(mark.erasedUpTo);
      for (const [task, digests] of byTask(found)) await eraseFromRuns(this.config.dataDir, task, digests);
      const now = { ...mark, erasedUpTo: found.at(-1)?.seq ?? mark.erasedUpTo };
      if (found.length > 0 || mark.isNew) {
        await writeWhole(this.#markFile, JSON.stringify({ id: now.id, erasedUpTo: now.erasedUpTo }));
      }
      await this.erasures.report(now.id, now.erasedUpTo);
    });
  }

  /** Erases one text from the runs here; how many rows. */
  erase(task: string, digest: string): Promise<number> {
    return this.#alone(() => eraseFromRuns(this.config.dataDir, task, new Set([digest])));
  }

  /** Data folders of any process that still may hold a forgotten text. */
  pending(): Promise<number> {
    return this.erasures.pending(new Date(Date.now() - GONE_MS));
  }

  /** Fills a run's folder, unless an earlier attempt did, and erases from it what was forgotten since that began. */
  async fill(task: string, folder: string, fill: () => Promise<void>): Promise<void> {
    const file = path.join(folder, 'forgotten.json');
    const known = await readJson<Pick<Mark, 'erasedUpTo'>>(file);
    const erasedUpTo = known?.erasedUpTo ?? (await this.erasures.last());
    if (!known) {
      await mkdir(folder, { recursive: true });
      await writeWhole(file, JSON.stringify({ erasedUpTo }));
    }
    await fill();
    const digests = byTask(await this.erasures.after(erasedUpTo)).get(task);
    if (digests) await this.#alone(() => eraseFromRun(folder, digests));
  }

  get #markFile(): string {
    return path.join(this.config.dataDir, 'runs', 'forgotten.json');
  }

  async #mark(): Promise<Mark & { isNew: boolean }> {
    const known = await readJson<Mark>(this.#markFile);
    if (known) return { ...known, isNew: false };
    await mkdir(path.dirname(this.#markFile), { recursive: true });
    return { id: randomUUID(), erasedUpTo: '0', isNew: true };
  }

  #alone<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#last.then(act, act);
    this.#last = done.catch(() => undefined);
    return done;
  }
}

function byTask(erasures: { task: string; digest: string }[]): Map<string, Set<string>> {
  const digests = new Map<string, Set<string>>();
  for (const { task, digest } of erasures) digests.set(task, (digests.get(task) ?? new Set()).add(digest));
  return digests;
}

async function readJson<T>(file: string): Promise<T | null> {
  const content = await readFile(file, 'utf8').catch(() => null);
  return content === null ? null : (JSON.parse(content) as T);
}
