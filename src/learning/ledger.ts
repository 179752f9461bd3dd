/**
 * The ledger: what was decided, by whom and why, and what was erased. Append-only (the database refuses changes) and
 * hash-chained over all tasks: each entry's hash covers the entry and the hash before it, so that a row changed, taken
 * out or put in behind the database's back is found by `verify`. What a chain alone cannot show is its end cut off:
 * whoever has kept the last hash can.
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import type { LedgerEntryRow } from '../storage/entities/ledger-entry.js';
import { LedgerRepository, type NewLedgerEntry } from '../storage/ledger.repository.js';
import type { Tx } from '../storage/transactions.js';
import { canonicalJson, sha256 } from '../task/keys.js';

export type LedgerKind =
  | 'promotion-approved-first'
  | 'promotion-approved'
  | 'promotion-rejected'
  | 'canary-stopped'
  | 'canary-completed'
  | 'rolled-back'
  | 'activated'
  | 'forgotten'
  | 'revoked'
  | 'restored'
  | 'label-corrected'
  | 'key-created'
  | 'key-rotated'
  | 'key-revoked';

/** In place of a task's name, of what belongs to none. */
export const NO_TASK = '';

export interface LedgerFinding {
  /** Entries that were read, up to the first that does not hold. */
  entries: number;
  /** Sequence number of the first entry that is not what was written; null: the chain holds. */
  brokenAt: string | null;
  lastHash: string;
  /** Whether the hash that was asked for is among those that hold; null where none was. */
  contains: boolean | null;
}

const GENESIS = '0'.repeat(64);
const PAGE = 500;
/** As far as PostgreSQL's bigint goes. */
const SEQ = /^\d{1,18}$/u;

@Injectable()
export class LedgerService {
  constructor(@Inject(LedgerRepository) private readonly ledger: LedgerRepository) {}

  /** In the caller's transaction: an act and its entry are kept or lost together. */
  async append(tx: Tx, task: string, kind: LedgerKind, body: Record<string, unknown>): Promise<void> {
    const last = await this.ledger.lockLast(tx);
    // As it will be read back: without what JSON does not keep.
    const kept = JSON.parse(JSON.stringify(body)) as Record<string, unknown>;
    const entry = { task, kind, body: kept, at: new Date(), previousHash: last?.hash ?? GENESIS };
    await this.ledger.insert({ ...entry, hash: hashOf(entry) }, tx);
  }

  /** Reads the chain from its start. `hash`: of an entry that must be in it. */
  async verify(hash: string | null = null): Promise<LedgerFinding> {
    let lastHash = GENESIS;
    let entries = 0;
    let after = '0';
    let contains = hash === null ? null : hash === GENESIS;
    for (;;) {
      const page = await this.ledger.page(after, PAGE);
      for (const entry of page) {
        if (entry.previousHash !== lastHash || hashOf(entry) !== entry.hash) {
          return { entries, brokenAt: entry.seq, lastHash, contains };
        }
        lastHash = entry.hash;
        if (hash === lastHash) contains = true;
        entries += 1;
        after = entry.seq;
      }
      if (page.length < PAGE) return { entries, brokenAt: null, lastHash, contains };
    }
  }

  /** Newest first; `after` is the last `seq` of the page before. */
  async listOfTask(task: string, first: number, after: string | null = null): Promise<LedgerEntryRow[]> {
    if (after !== null && !SEQ.test(after)) throw badInput('after', 'is no cursor of this query');
    return this.ledger.listOfTask(task, first, after);
  }
}

function hashOf(entry: Omit<NewLedgerEntry, 'hash'>): string {
  const { task, kind, body, at, previousHash } = entry;
  return sha256(canonicalJson({ task, kind, body, at: at.toISOString(), previousHash }));
}
