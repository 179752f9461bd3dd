/** The ledger's chain on a real database: what is changed behind its back is found. */
import type { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LedgerService } from '../../src/learning/ledger.js';
import { connect } from '../../src/storage/database.js';
import { LedgerRepository } from '../../src/storage/ledger.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { createDatabase } from '../fixtures/database.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataSource: DataSource;
let ledger: LedgerService;
let transactions: Transactions;

beforeEach(async () => {
  database = await createDatabase();
  dataSource = await connect(database.url);
  ledger = new LedgerService(new LedgerRepository(dataSource));
  transactions = new Transactions(dataSource);
});
afterEach(async () => {
  await dataSource.destroy();
  await database.drop();
});

function append(task: string, body: Record<string, unknown>): Promise<void> {
  return transactions.run((tx) => ledger.append(tx, task, 'activated', body));
}

/** As somebody with the database's password would, past the trigger that refuses it. */
async function tamper(sql: string): Promise<void> {
  await dataSource.transaction(async (tx) => {
    await tx.query('ALTER TABLE ledger_entry DISABLE TRIGGER ledger_entry_no_change');
    await tx.query(sql);
    await tx.query('ALTER TABLE ledger_entry ENABLE TRIGGER ledger_entry_no_change');
  });
}

describe('the ledger', () => {
  it('holds over tasks, whatever the bodies hold', async () => {
    expect(await ledger.verify()).toMatchObject({ entries: 0, brokenAt: null });
    await append('a', {
      margin: 0.1,
      tiny: 1e-9,
      large: 1e21,
      negative: -0,
      text: '引号" \u2028 😀',
      absent: undefined,
    });
    await append('b', { nested: { z: [1, null, true], a: 'x' } });
    await append('a', {});
    expect(await ledger.verify()).toMatchObject({ entries: 3, brokenAt: null });
    expect(await ledger.listOfTask('a', 10)).toHaveLength(2);
  });

  it('is read task by task, newest first, page by page', async () => {
    for (const n of [1, 2, 3, 4, 5]) await append(n === 2 ? 'b' : 'a', { n });
    const pages: unknown[] = [];
    for (let after: string | null = null; pages.length < 3;) {
      const page = await ledger.listOfTask('a', 2, after);
      pages.push(page.map(({ body }) => body));
      after = page.at(-1)?.seq ?? null;
    }
    expect(pages).toEqual([[{ n: 5 }, { n: 4 }], [{ n: 3 }, { n: 1 }], []]);
    await expect(ledger.listOfTask('a', 2, 'the end')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'after' });
  });

  it('is one chain although many write at once', async () => {
    await Promise.all(Array.from({ length: 8 }, (_, n) => append(`task-${n % 3}`, { n })));
    expect(await ledger.verify()).toMatchObject({ entries: 8, brokenAt: null });
  });

  it('loses the entry of an act that failed', async () => {
    const act = transactions.run(async (tx) => {
      await ledger.append(tx, 'a', 'activated', {});
      throw new Error('the act failed');
    });
    await expect(act).rejects.toThrow('the act failed');
    await append('a', {});
    expect(await ledger.verify()).toMatchObject({ entries: 1, brokenAt: null });
  });

  it('cannot be changed', async () => {
    await append('a', {});
    await expect(dataSource.query(`UPDATE ledger_entry SET task = 'b'`)).rejects.toThrow('append-only');
    await expect(dataSource.query(`DELETE FROM ledger_entry`)).rejects.toThrow('append-only');
  });

  it.each([
    ['a changed body', `UPDATE ledger_entry SET body = '{"n": 7}' WHERE seq = 2`, '2'],
    ['a changed time', `UPDATE ledger_entry SET at = at + interval '1 second' WHERE seq = 2`, '2'],
    ['a changed kind', `UPDATE ledger_entry SET kind = 'forgotten' WHERE seq = 3`, '3'],
    ['a removed entry', `DELETE FROM ledger_entry WHERE seq = 2`, '3'],
    ['a changed link', `UPDATE ledger_entry SET previous_hash = repeat('0', 64) WHERE seq = 3`, '3'],
  ])('shows %s', async (_what, sql, brokenAt) => {
    for (const n of [1, 2, 3]) await append('a', { n });
    await tamper(sql);
    expect(await ledger.verify()).toMatchObject({ brokenAt });
  });
});
